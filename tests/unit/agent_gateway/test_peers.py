"""The line to another replica."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest

from tests.peers.ports import free_port
from tests.unit.agent_gateway.routing import at_two, away, dispatched, told, wanted
from twinline.agent_gateway.v1 import agents_pb2, fleet_pb2_grpc
from twinline.agent_gateway.v1 import fleet_pb2 as pb
from twinline_agent_gateway import dispatch_streams, peers
from twinline_agent_gateway.dispatch_streams import DispatchStream
from twinline_agent_gateway.peers import PeerLink, Peers
from twinline_agent_gateway.router import Router
from twinline_agent_gateway.states import State
from twinline_agent_gateway.store import Location

PIECE = 64 << 10


class Two(fleet_pb2_grpc.FleetServiceServicer):
    """A replica that has these messages to say."""

    def __init__(self, *said: pb.DispatchResponse) -> None:
        self.said = said

    async def Dispatch(self, requests: object, context: Any) -> None:  # type: ignore[override]
        for message in self.said:
            await context.write(message)
        while await context.read() is not grpc.aio.EOF:
            pass


@asynccontextmanager
async def linked(*said: pb.DispatchResponse) -> AsyncIterator[Router]:
    """A router whose line to a peer is held once something was dispatched to an agent there."""
    server, lines = grpc.aio.server(), Peers("one", grpc.aio.insecure_channel)
    fleet_pb2_grpc.add_FleetServiceServicer_to_server(Two(*said), server)  # type: ignore[abstract]
    place = Location(State.CONNECTED, "two", f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    await server.start()
    router = Router("one", at_two, lambda _: lines.link(place))
    holding = asyncio.ensure_future(lines.run(router))
    try:
        yield router
    finally:
        holding.cancel()
        await asyncio.wait([holding])
        await server.stop(0)


def reported(task_id: str, size: int = 0) -> pb.DispatchResponse:
    """What a peer says of a task of its agent: so many bytes of output."""
    state = agents_pb2.TaskReport.STATE_RUNNING
    pieces = [agents_pb2.TaskReport(task_id=task_id, state=state, data=bytes(PIECE))] * (size // PIECE)
    last = agents_pb2.TaskReport(task_id=task_id, state=state)
    return pb.DispatchResponse(reports=[pb.AgentReport(agent_id="agent-1", reports=pieces or [last])])


async def test_all_that_waits_for_a_peer_is_answered_when_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "backoff", lambda _: 0.0)
    link = PeerLink(Location(State.CONNECTED, "two", f"127.0.0.1:{free_port()}"), "one", grpc.aio.insecure_channel)
    router, dispatcher = Router("one", at_two, lambda _: link), DispatchStream("executor-1", forwarded=False)
    router.open(dispatcher)
    await dispatched(router, dispatcher, wanted("task-1", "task-2", "task-3"))
    await link.run(router)
    assert await away(dispatcher) == {"task-1", "task-2", "task-3"}


async def test_a_peer_for_which_too_much_waits_is_no_reason_to_reject_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MOST_PARCELS", 1)
    link = PeerLink(Location(State.CONNECTED, "two", "127.0.0.1:1"), "one", grpc.aio.insecure_channel)
    router, dispatcher = Router("one", at_two, lambda _: link), DispatchStream("executor-1", forwarded=False)
    router.open(dispatcher)
    await dispatched(router, dispatcher, wanted("task-1", "task-2", script=b"true"))
    await dispatched(router, dispatcher, wanted("task-3"))
    assert await away(dispatcher) == {"task-2", "task-3"}


async def test_what_a_peer_had_no_room_for_is_asked_for_again() -> None:
    dispatcher = DispatchStream("executor-1", forwarded=False)
    async with linked(pb.DispatchResponse(presence=[pb.AgentPresence(agent_id="agent-1")])) as router:
        router.open(dispatcher)
        await dispatched(router, dispatcher, wanted("task-1"))
        assert [each.agent_id for each in (await told(dispatcher)).presence] == ["agent-1"]


async def test_an_executor_that_reads_nothing_holds_back_nothing_of_what_a_peer_says_to_others() -> None:
    slow, quick = (DispatchStream(name, forwarded=False) for name in ("slow", "quick"))
    async with linked(*[reported("task-1", 1 << 20)] * 12, reported("task-2")) as router:
        for dispatcher, task in ((slow, "task-1"), (quick, "task-2")):
            router.open(dispatcher)
            await dispatched(router, dispatcher, wanted(task))
        assert [report.task_id for report in (await told(quick)).reports[0].reports] == ["task-2"]
        assert slow.full
        assert not slow.sheds("agent-1")


async def test_what_a_peer_says_is_shed_when_too_much_is_held_and_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch_streams, "MOST_SURPLUS", 1 << 20)
    slow, quick = (DispatchStream(name, forwarded=False) for name in ("slow", "quick"))
    async with linked(*[reported("task-1", 1 << 20)] * 12, reported("task-2")) as router:
        for dispatcher, task in ((slow, "task-1"), (quick, "task-2")):
            router.open(dispatcher)
            await dispatched(router, dispatcher, wanted(task))
        await told(quick)
        assert slow.sheds("agent-1")
        pieces, response = 0, pb.DispatchResponse()
        while not response.presence:
            response = await told(slow)
            pieces += sum(len(each.reports) for each in response.reports)
        assert pieces * PIECE <= 9 << 20
        assert [each.agent_id for each in response.presence] == ["agent-1"]
        assert not slow.sheds("agent-1")
