"""Beside the streams: cuts agents that fell silent, and sends all away in slots when this replica stops."""

import asyncio
import time

from twinline_agent_gateway.errors import AgentSilent, GatewayStopping
from twinline_agent_gateway.router import Router
from twinline_agent_gateway.streams import Writers
from twinline_kit import loops

_SILENT_BEATS = 3
_LOOK_EVERY = 0.02
_DRAIN_LOOKS = 150


class Shepherd:
    """Looks after the streams of this replica."""

    def __init__(self, router: Router, writers: Writers, *, heartbeat: float, drain_rate: float) -> None:
        """`heartbeat` in seconds; `drain_rate` in agents a second."""
        self._router = router
        self._writers = writers
        self._heartbeat = heartbeat
        self._drain_rate = drain_rate

    async def run(self) -> None:
        """Write, and cut who is silent; when cancelled, first ask the agents to go, then end the dispatchers."""
        writing = asyncio.ensure_future(self._writers.run())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(loops.forever("silent agents", self._cut_silent, every=self._heartbeat))
                await asyncio.shield(writing)
        finally:
            await self._drain()
            self._router.send_away(stopping())
            writing.cancel()
            await asyncio.wait([writing])

    async def _cut_silent(self) -> None:
        earliest = time.monotonic() - self._heartbeat * _SILENT_BEATS
        for stream in self._router.streams():
            if stream.heard < earliest:
                stream.cut(silent())

    async def _drain(self) -> None:
        """Each agent gets a slot of its own, so that they do not all come back at once."""
        streams = self._router.streams()
        for place, stream in enumerate(streams):
            stream.drain(1.0 + place / self._drain_rate)
        for _ in range(_DRAIN_LOOKS):
            if all(stream.idle for stream in streams):
                break
            await asyncio.sleep(_LOOK_EVERY)


def silent() -> AgentSilent:
    """The end of a stream whose agent is there no more."""
    return AgentSilent("the agent says or takes nothing: it will have to connect again")


def stopping() -> GatewayStopping:
    """The end of a stream because this replica goes away."""
    return GatewayStopping("this gateway is stopping: connect again")
