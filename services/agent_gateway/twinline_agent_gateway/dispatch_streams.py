"""Dispatch streams: what an executor, or a peer replica for its executors, is told."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice

import grpc.aio

from twinline.agent_gateway.v1 import agents_pb2
from twinline.agent_gateway.v1 import fleet_pb2 as pb
from twinline_agent_gateway.cuts import Cuttable
from twinline_agent_gateway.lookup import Lookup

log = logging.getLogger(__name__)

AT_ONCE = 256
"""Reports in one message."""

FLUSH_AFTER = 0.005
"""Seconds for which the first report waits for others."""

MOST_REPORTS = 4096
MOST_BYTES = 8 << 20
"""Of output that waits for one stream; beyond it, reports have no room."""

MOST_SURPLUS = 32 << 20
"""Bytes beyond that of what peers' agents report."""

MESSAGE = 4 << 20

_OF_A_REPORT = 1 << 10
"""Bytes of memory that a report takes beside its output."""

_OF_AN_AGENT = 1 << 20
"""Bytes that an agent may send when it is asked again: its window of a task's output."""

_MOST_NAMED = 10_000

Write = Callable[[pb.DispatchResponse], Awaitable[None]]


class _Message:
    """A message that reports are put into as they come: each is copied but once."""

    __slots__ = ("_agent_id", "_group", "bytes", "count", "response")

    def __init__(self) -> None:
        self.response = pb.DispatchResponse()
        self.count = 0
        self.bytes = 0
        self._agent_id = ""
        self._group: pb.AgentReport | None = None

    @property
    def full(self) -> bool:
        """Whether the next report goes into another one."""
        return self.count >= AT_ONCE or self.bytes >= MESSAGE

    def add(self, agent_id: str, report: agents_pb2.TaskReport, size: int) -> None:
        """Put a report in, beside what the same agent said just before."""
        if self._group is None or self._agent_id != agent_id:
            self._group, self._agent_id = self.response.reports.add(agent_id=agent_id), agent_id
        self._group.reports.append(report)
        self.count += 1
        self.bytes += size


class DispatchStream(Cuttable):
    """One stream. Reports wait here; where they do not fit, the reading from agents waits, or they are shed.

    To shed is to drop what an agent reports until there is room again, and then to have it asked for anew, as if the
    agent had just connected.
    """

    def __init__(self, name: str, *, forwarded: bool) -> None:
        """`name` is the dispatcher's; `forwarded` says that it is a peer."""
        super().__init__()
        self.name = name
        self.forwarded = forwarded
        self.closed = False
        self.lookup = Lookup()
        self._messages: deque[_Message] = deque()
        self._reports = 0
        self._bytes = 0
        # Not bounded but by what this dispatcher asked for and by the number of agents: reading its requests must never
        # wait for it to read our answers.
        self._presence: dict[str, None] = {}
        self._away: dict[tuple[str, pb.Agent.State.ValueType], dict[str, None]] = {}
        self._shed: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._many = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether a report has to wait for `room`."""
        return not self.closed and (self._reports >= MOST_REPORTS or self._bytes >= MOST_BYTES)

    @property
    def hesitant(self) -> bool:
        """Whether a report may have to wait for `room`, or its agent's are shed."""
        return bool(self._shed) or self.full

    @property
    def overfull(self) -> bool:
        """Whether not even a report of a peer's agent fits, as the reading from a peer never waits."""
        return not self.closed and self._bytes >= MOST_BYTES + MOST_SURPLUS

    async def room(self, *, within: float) -> bool:
        """Wait until a report fits, or the stream is gone. False when that took longer than `within` seconds."""
        try:
            async with asyncio.timeout(within):
                while self.full:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            return False
        return True

    def shed(self, agent_id: str) -> None:
        """Drop this agent's reports until they are asked for again."""
        if not self.closed:
            self._shed[agent_id] = None
            self._wake.set()

    def sheds(self, agent_id: str) -> bool:
        """Whether this agent's reports are dropped for now."""
        return agent_id in self._shed

    def report(self, agent_id: str, report: agents_pb2.TaskReport) -> None:
        """Pass a report up."""
        if self.closed:
            return
        if not self._messages or self._messages[-1].full:
            self._messages.append(_Message())
        size = _OF_A_REPORT + len(report.data) + len(report.message)
        self._messages[-1].add(agent_id, report, size)
        self._reports += 1
        self._bytes += size
        self._wake.set()
        if self._reports >= AT_ONCE:
            self._many.set()

    def tell_presence(self, agent_id: str) -> None:
        """Say that an agent connected, or must be asked again."""
        self._presence[agent_id] = None
        self._wake.set()

    def tell_away(self, agent_id: str, task_id: str, state: "pb.Agent.State.ValueType") -> None:
        """Say that a task could not be handed over."""
        self._away.setdefault((agent_id, state), {})[task_id] = None
        self._wake.set()

    def close(self) -> None:
        """Take nothing more, and let go of all who wait."""
        self.closed = True
        self.lookup.clear()
        self._messages.clear()
        self._reports = self._bytes = 0
        self._shed.clear()
        self._room.set()

    async def send(self, write: Write) -> None:
        """Write what there is to tell, several in one message, until cancelled or the line is gone."""
        while True:
            await self._wake.wait()
            if self._reports < AT_ONCE:
                self._many.clear()
                try:
                    async with asyncio.timeout(FLUSH_AFTER):
                        await self._many.wait()
                except TimeoutError:
                    pass
            response = self._take()
            if not (self._reports or self._presence or self._away or self._shed):
                self._wake.clear()
            self._room.set()
            try:
                await write(response)
            except grpc.aio.BaseError as error:
                # The line is gone. The reading side notices too; whoever is at its end states all again.
                log.debug("not written", extra={"dispatcher": self.name, "error": str(error)})
                return

    def _take(self) -> pb.DispatchResponse:
        message = self._messages.popleft() if self._messages else _Message()
        self._reports -= message.count
        self._bytes -= message.bytes
        response = message.response
        self._take_back()
        for agent_id in list(islice(self._presence, _MOST_NAMED)):
            del self._presence[agent_id]
            response.presence.add(agent_id=agent_id)
        room = _MOST_NAMED
        while self._away and room > 0:
            (agent_id, state), task_ids = self._away.popitem()
            response.not_connected.add(agent_id=agent_id, task_ids=task_ids, state=state)
            room -= len(task_ids)
        return response

    def _take_back(self) -> None:
        """Have agents asked again whose reports were shed: as many as there is room for, so that it is not in vain."""
        if self.full:
            return
        for agent_id in list(islice(self._shed, max(1, (MOST_BYTES - self._bytes) // _OF_AN_AGENT))):
            del self._shed[agent_id]
            self._presence[agent_id] = None
