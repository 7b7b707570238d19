"""The other side of a Dispatch stream: what an executor, or a peer replica for its executors, is told."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import islice

import grpc.aio

from twinline.agent_gateway.v1 import agents_pb2
from twinline.agent_gateway.v1 import fleet_pb2 as pb
from twinline_kit.errors import Error

log = logging.getLogger(__name__)

AT_ONCE = 256
"""Reports in one message."""

FLUSH_AFTER = 0.005
"""Seconds for which the first report waits for others."""

MOST_REPORTS = 4096
MOST_BYTES = 8 << 20
MESSAGE = 4 << 20

_MOST_NAMED = 10_000

Write = Callable[[pb.DispatchResponse], Awaitable[None]]


class Dispatcher:
    """One Dispatch stream. Reports wait here, bounded; where they do not fit, the reading from agents waits."""

    def __init__(self, name: str, *, forwarded: bool) -> None:
        """Belongs to the task that makes it, which is the one that `cut` ends."""
        self.name = name
        self.forwarded = forwarded
        self.closed = False
        self._task = asyncio.current_task()
        self._cut_with: Error | None = None
        self._reports: list[tuple[str, agents_pb2.TaskReport]] = []
        self._bytes = 0
        # Not bounded but by what this dispatcher asked for and by the number of agents: reading its requests must never
        # wait for it to read our answers.
        self._presence: dict[str, None] = {}
        self._away: dict[tuple[str, pb.Agent.State.ValueType], dict[str, None]] = {}
        self._wake = asyncio.Event()
        self._many = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether a report has to wait for `room`."""
        return not self.closed and (len(self._reports) >= MOST_REPORTS or self._bytes >= MOST_BYTES)

    async def room(self) -> None:
        """Wait until a report fits, or the stream is gone."""
        while self.full:
            self._room.clear()
            await self._room.wait()

    def report(self, agent_id: str, report: agents_pb2.TaskReport) -> None:
        """Pass a report up."""
        if self.closed:
            return
        self._reports.append((agent_id, report))
        self._bytes += 64 + len(report.data)
        self._wake.set()
        if len(self._reports) >= AT_ONCE:
            self._many.set()

    def tell_presence(self, agent_id: str) -> None:
        """Say that an agent connected."""
        self._presence[agent_id] = None
        self._wake.set()

    def tell_away(self, agent_id: str, task_id: str, state: "pb.Agent.State.ValueType") -> None:
        """Say that a task could not be handed over."""
        self._away.setdefault((agent_id, state), {})[task_id] = None
        self._wake.set()

    def cut(self, why: Error) -> None:
        """End the stream with this error."""
        if self._cut_with is None and self._task is not None:
            self._cut_with = why
            self._task.cancel()

    def was_cut(self) -> Error | None:
        """Why `cut` ended the stream; None when the other side, or the line, did."""
        if self._cut_with is not None and self._task is not None:
            self._task.uncancel()
        return self._cut_with

    def close(self) -> None:
        """Take nothing more, and let go of all who wait."""
        self.closed = True
        self._reports.clear()
        self._room.set()

    async def send(self, write: Write) -> None:
        """Write what there is to tell, several in one message, until cancelled or the line is gone."""
        while True:
            await self._wake.wait()
            if len(self._reports) < AT_ONCE:
                self._many.clear()
                try:
                    async with asyncio.timeout(FLUSH_AFTER):
                        await self._many.wait()
                except TimeoutError:
                    pass
            response = self._take()
            if not (self._reports or self._presence or self._away):
                self._wake.clear()
            self._room.set()
            try:
                await write(response)
            except grpc.aio.BaseError as error:
                # The line is gone. The reading side notices too; whoever is at its end states all again.
                log.debug("not written", extra={"dispatcher": self.name, "error": str(error)})
                return

    def _take(self) -> pb.DispatchResponse:
        response = pb.DispatchResponse()
        groups: dict[str, pb.AgentReport] = {}
        taken = size = 0
        for agent_id, report in self._reports[:AT_ONCE]:
            if size >= MESSAGE:
                break
            group = groups.get(agent_id)
            if group is None:
                group = groups[agent_id] = response.reports.add(agent_id=agent_id)
            group.reports.append(report)
            taken += 1
            size += 64 + len(report.data)
        del self._reports[:taken]
        self._bytes -= size
        for agent_id in list(islice(self._presence, _MOST_NAMED)):
            del self._presence[agent_id]
            response.presence.add(agent_id=agent_id)
        room = _MOST_NAMED
        while self._away and room > 0:
            (agent_id, state), task_ids = self._away.popitem()
            response.not_connected.add(agent_id=agent_id, task_ids=task_ids, state=state)
            room -= len(task_ids)
        return response
