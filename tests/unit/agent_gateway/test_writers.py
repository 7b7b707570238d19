"""How much of what waits for agents is written at once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.peers.eventually import eventually
from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline_agent_gateway.shepherd import silent
from twinline_agent_gateway.streams import MOST_HEAVY, AgentStream, Parcel, Writers

WORK = pb.Work(script=b"x" * (3 << 20))


class Lines:
    """Calls to agents that take messages when they may, and what is on its way to all of them."""

    def __init__(self, writers: Writers) -> None:
        self._writers = writers
        self.open = asyncio.Event()
        self.taken = self.now = self.most = 0

    def agent(self, number: int, *, takes: bool = True) -> AgentStream:
        """A stream for which some work waits."""
        context: Any = _Line(self, takes=takes)
        stream = AgentStream(f"agent-{number}", 1, context, self._writers.queue)
        stream.deliver(Parcel(f"task-{number}", WORK, 0, {}, size=WORK.ByteSize()))
        return stream


class _Line:
    def __init__(self, lines: Lines, *, takes: bool) -> None:
        self._lines = lines
        self._takes = takes

    async def write(self, message: pb.GatewayMessage) -> None:
        size = message.ByteSize()
        self._lines.now += size
        self._lines.most = max(self._lines.most, self._lines.now)
        await (self._lines.open if self._takes else asyncio.Event()).wait()
        self._lines.now -= size
        self._lines.taken += 1


@pytest.fixture
async def lines() -> AsyncIterator[Lines]:
    writers = Writers(silent())
    writing = asyncio.ensure_future(writers.run())
    yield Lines(writers)
    writing.cancel()
    await asyncio.wait({writing})


async def test_only_so_many_bytes_of_large_work_are_written_at_once(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Writers, "STUCK", 60.0)
    streams = [lines.agent(number) for number in range(40)]
    await eventually(lambda: lines.now > MOST_HEAVY // 2)
    lines.open.set()
    await eventually(lambda: lines.taken == len(streams))
    assert MOST_HEAVY // 2 < lines.most <= MOST_HEAVY


async def test_agents_that_take_nothing_do_not_hold_back_large_work_of_others(lines: Lines) -> None:
    streams = [lines.agent(number, takes=False) for number in range(20)]
    lines.open.set()
    streams.append(lines.agent(20))
    await eventually(lambda: lines.taken == 1)
