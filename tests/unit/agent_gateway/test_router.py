"""The way to agents that other replicas hold."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc.aio
import pytest

import twinline_agent_gateway.router
from tests.peers.eventually import eventually
from tests.service.agent_gateway.running import free_port
from twinline.agent_gateway.v1 import agents_pb2, fleet_pb2_grpc
from twinline.agent_gateway.v1 import fleet_pb2 as pb
from twinline_agent_gateway import lookup, peers
from twinline_agent_gateway.dispatch_streams import DispatchStream
from twinline_agent_gateway.errors import AgentRevoked, StreamFenced
from twinline_agent_gateway.peers import PeerLink, Peers
from twinline_agent_gateway.router import Router
from twinline_agent_gateway.states import State
from twinline_agent_gateway.store import Change, Location
from twinline_agent_gateway.streams import MOST_DELIVERIES, AgentStream, Context, Parcel

PIECE = 64 << 10


class Far:
    """A replica that notes what it is sent."""

    replica = "two"

    def __init__(self) -> None:
        self.delivered: list[str] = []
        self.canceled: list[str] = []

    def deliver(self, agent_id: str, parcel: Parcel) -> bool:
        self.delivered.append(parcel.task_id)
        return True

    def order(self, orders: pb.AgentOrders) -> None:
        self.canceled += orders.cancel


async def at_two(agent_ids: Sequence[str]) -> dict[str, Location]:
    return {agent_id: Location(State.CONNECTED, "two", "127.0.0.1:1") for agent_id in agent_ids}


async def never(agent_ids: Sequence[str]) -> dict[str, Location]:
    """As a database that does not answer."""
    await asyncio.Event().wait()
    return {}


def connected(number: int, replica: str) -> Change:
    return Change(number, "agent-1", replica, epoch=number, connected=True, revoked=False)


def cancel(task_id: str) -> pb.DispatchRequest:
    return pb.DispatchRequest(orders=[pb.AgentOrders(agent_id="agent-1", cancel=[task_id])])


def wanted(*task_ids: str, script: bytes | None = None, withdraw: bool = False) -> pb.DispatchRequest:
    """That these are followed or withdrawn; with a script, that they start."""
    work = None if script is None else agents_pb2.Work(script=script)
    tasks = [pb.AgentTask(task_id=task_id, agent_id="agent-1", withdraw=withdraw) for task_id in task_ids]
    return pb.DispatchRequest(batches=[pb.DispatchBatch(work=work, tasks=tasks)])


async def dispatched(router: Router, dispatcher: DispatchStream, request: pb.DispatchRequest) -> None:
    """Have it done, also where agents must be found for it."""
    await router.dispatch(dispatcher, request)
    if dispatcher.lookup.waiting.is_set():
        await router.find(dispatcher)


async def told(dispatcher: DispatchStream) -> pb.DispatchResponse:
    """The next message."""
    written: asyncio.Queue[pb.DispatchResponse] = asyncio.Queue()
    sending = asyncio.ensure_future(dispatcher.send(written.put))
    response = await asyncio.wait_for(written.get(), 10)
    sending.cancel()
    return response


async def away(dispatcher: DispatchStream) -> set[str]:
    """The tasks that the next message says were not handed over."""
    response = await told(dispatcher)
    assert not response.reports
    assert {gone.agent_id for gone in response.not_connected} == {"agent-1"}
    return {task_id for gone in response.not_connected for task_id in gone.task_ids}


async def test_late_news_of_an_agent_keeps_the_way_to_it_and_news_of_a_move_does_not() -> None:
    far = Far()
    router, dispatcher = Router("one", at_two, lambda _: far), DispatchStream("executor-1", forwarded=False)
    router.open(dispatcher)
    task = pb.AgentTask(task_id="task-1", agent_id="agent-1")
    await dispatched(router, dispatcher, pb.DispatchRequest(batches=[pb.DispatchBatch(tasks=[task])]))
    router.changed(connected(1, "two"))
    await dispatched(router, dispatcher, cancel("task-1"))
    assert far.canceled == ["task-1"]
    router.changed(connected(2, "three"))
    await dispatched(router, dispatcher, cancel("task-2"))
    assert far.canceled == ["task-1"]


async def test_every_task_that_a_peer_could_not_hand_over_is_answered_however_it_is_told() -> None:
    far = Far()
    router, dispatcher = Router("one", at_two, lambda _: far), DispatchStream("executor-1", forwarded=False)
    router.open(dispatcher)
    await dispatched(router, dispatcher, wanted("task-1", "task-2", "task-3"))
    router.away(far, "agent-1", ["task-1"], pb.Agent.STATE_LOST)
    router.away(far, "agent-1", ["task-2", "task-3"], pb.Agent.STATE_LOST)
    assert await away(dispatcher) == {"task-1", "task-2", "task-3"}


async def test_a_peer_has_no_say_on_tasks_that_went_another_way() -> None:
    first, second = Far(), Far()
    links = iter((first, second))
    router, dispatcher = Router("one", at_two, lambda _: next(links)), DispatchStream("executor-1", forwarded=False)
    router.open(dispatcher)
    await dispatched(router, dispatcher, wanted("task-1"))
    await dispatched(router, dispatcher, wanted("task-1"))
    router.away(first, "agent-1", ["task-1"], pb.Agent.STATE_LOST)
    router.away(second, "agent-1", ["task-1"], pb.Agent.STATE_REVOKED)
    assert await away(dispatcher) == {"task-1"}


async def test_all_that_waits_for_a_peer_is_answered_when_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "backoff", lambda _: 0.0)
    link = PeerLink(Location(State.CONNECTED, "two", f"127.0.0.1:{free_port()}"), "one", grpc.aio.insecure_channel)
    router, dispatcher = Router("one", at_two, lambda _: link), DispatchStream("executor-1", forwarded=False)
    router.open(dispatcher)
    await dispatched(router, dispatcher, wanted("task-1", "task-2", "task-3"))
    await link.run(router)
    assert await away(dispatcher) == {"task-1", "task-2", "task-3"}


class Line:
    """An agent's line, which notes what is written to it."""

    def __init__(self) -> None:
        self.deliveries: list[agents_pb2.Delivery] = []
        self.canceled: list[str] = []

    async def write(self, message: agents_pb2.GatewayMessage) -> None:
        self.deliveries += message.orders.deliveries
        self.canceled += message.orders.cancel


async def test_tasks_that_are_followed_or_withdrawn_get_through_however_much_work_waits_for_their_agent() -> None:
    line, router = Line(), Router("one", at_two, lambda _: Far())
    here, dispatcher = stream(1, line), DispatchStream("executor-1", forwarded=False)
    router.attach(here)
    router.open(dispatcher)
    follows = [f"task-{number}" for number in range(MOST_DELIVERIES)]
    await dispatched(router, dispatcher, wanted(*follows))
    works = [f"work-{number}" for number in range(MOST_DELIVERIES + 1)]
    await dispatched(router, dispatcher, wanted(*works, script=b"true"))
    await dispatched(router, dispatcher, wanted("task-late", works[0], withdraw=True))
    assert [report.task_id for each in (await told(dispatcher)).reports for report in each.reports] == works[-1:]
    await here.write()
    assert [each.task_id for each in line.deliveries] == [*follows, *works[:-1], "task-late"]
    assert [each.task_id for each in line.deliveries if each.withdraw] == [works[0], "task-late"]


async def test_only_work_is_rejected_when_no_more_tasks_can_be_routed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twinline_agent_gateway.router, "MOST_ROUTES", 0)
    router, dispatcher = Router("one", at_two, lambda _: Far()), DispatchStream("executor-1", forwarded=False)
    router.attach(stream(1))
    router.open(dispatcher)
    await dispatched(router, dispatcher, wanted("task-1", script=b"true"))
    await dispatched(router, dispatcher, wanted("task-2"))
    await dispatched(router, dispatcher, wanted("task-3", withdraw=True))
    response = await told(dispatcher)
    assert [report.task_id for each in response.reports for report in each.reports] == ["task-1"]
    assert {task_id for gone in response.not_connected for task_id in gone.task_ids} == {"task-2", "task-3"}
    assert {gone.state for gone in response.not_connected} == {pb.Agent.STATE_LOST}


async def test_a_peer_for_which_too_much_waits_is_no_reason_to_reject_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MOST_PARCELS", 1)
    link = PeerLink(Location(State.CONNECTED, "two", "127.0.0.1:1"), "one", grpc.aio.insecure_channel)
    router, dispatcher = Router("one", at_two, lambda _: link), DispatchStream("executor-1", forwarded=False)
    router.open(dispatcher)
    await dispatched(router, dispatcher, wanted("task-1", "task-2", script=b"true"))
    await dispatched(router, dispatcher, wanted("task-3"))
    assert await away(dispatcher) == {"task-2", "task-3"}


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


async def test_what_a_peer_had_no_room_for_is_asked_for_again() -> None:
    dispatcher = DispatchStream("executor-1", forwarded=False)
    async with linked(pb.DispatchResponse(presence=[pb.AgentPresence(agent_id="agent-1")])) as router:
        router.open(dispatcher)
        await dispatched(router, dispatcher, wanted("task-1"))
        assert [each.agent_id for each in (await told(dispatcher)).presence] == ["agent-1"]


def reported(task_id: str, size: int = 0) -> pb.DispatchResponse:
    """What a peer says of a task of its agent: so many bytes of output."""
    state = agents_pb2.TaskReport.STATE_RUNNING
    pieces = [agents_pb2.TaskReport(task_id=task_id, state=state, data=bytes(PIECE))] * (size // PIECE)
    last = agents_pb2.TaskReport(task_id=task_id, state=state)
    return pb.DispatchResponse(reports=[pb.AgentReport(agent_id="agent-1", reports=pieces or [last])])


async def test_an_executor_that_reads_nothing_holds_back_nothing_of_what_a_peer_says_to_others() -> None:
    slow, quick = (DispatchStream(name, forwarded=False) for name in ("slow", "quick"))
    async with linked(*[reported("task-1", 1 << 20)] * 12, reported("task-2")) as router:
        for dispatcher, task in ((slow, "task-1"), (quick, "task-2")):
            router.open(dispatcher)
            await dispatched(router, dispatcher, wanted(task))
        assert [report.task_id for report in (await told(quick)).reports[0].reports] == ["task-2"]
        assert slow.full
        assert not slow.sheds("agent-1")


async def test_an_executor_that_reads_nothing_holds_back_only_for_a_while_what_an_agent_says_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(twinline_agent_gateway.router, "PATIENCE", 0.1)
    slow, quick = (DispatchStream(name, forwarded=False) for name in ("slow", "quick"))
    router = Router("one", at_two, lambda _: Far())
    router.attach(stream(1))
    for dispatcher, task in ((slow, "task-1"), (quick, "task-2")):
        router.open(dispatcher)
        await router.dispatch(dispatcher, wanted(task))
    slow.report("agent-2", agents_pb2.TaskReport(data=bytes(8 << 20)))
    said = [
        agents_pb2.TaskReport(task_id=each, state=agents_pb2.TaskReport.STATE_RUNNING) for each in ("task-1", "task-2")
    ]
    await asyncio.wait_for(router.accept("agent-1", agents_pb2.Report(reports=said)), 10)
    assert [report.task_id for report in (await told(quick)).reports[0].reports] == ["task-2"]
    assert [each.agent_id for each in (await told(slow)).presence] == ["agent-1"]


async def test_what_a_peer_says_is_shed_when_too_much_is_held_and_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(twinline_agent_gateway.router, "MOST_HELD", 1 << 20)
    slow, quick = (DispatchStream(name, forwarded=False) for name in ("slow", "quick"))
    async with linked(*[reported("task-1", 1 << 20)] * 12, reported("task-2")) as router:
        for dispatcher, task in ((slow, "task-1"), (quick, "task-2")):
            router.open(dispatcher)
            await dispatched(router, dispatcher, wanted(task))
        await told(quick)
        assert slow.sheds("agent-1")
        assert slow.surplus < 2 << 20
        while not (response := await told(slow)).presence:
            pass
        assert [each.agent_id for each in response.presence] == ["agent-1"]
        assert not slow.sheds("agent-1")


async def test_of_the_revoked_only_the_latest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twinline_agent_gateway.router, "MOST_REVOKED", 2)
    router = Router("one", at_two, lambda _: Far())
    for number in range(3):
        router.revoked(f"agent-{number}")
    streams = [AgentStream(f"agent-{number}", 1, cast("Context", None), asyncio.Queue()) for number in range(3)]
    router.attach(streams[0])
    for stream in streams[1:]:
        with pytest.raises(AgentRevoked):
            router.attach(stream)


def stream(epoch: int, line: Line | None = None) -> AgentStream:
    return AgentStream("agent-1", epoch, cast("Context", line), asyncio.Queue())


async def test_of_two_streams_of_an_agent_the_newer_stays_whichever_comes_first() -> None:
    router, newer = Router("one", at_two, lambda _: Far()), stream(2)
    router.attach(newer)
    with pytest.raises(StreamFenced):
        router.attach(stream(1))
    assert router.streams() == [newer]


async def test_news_that_is_older_than_the_stream_here_does_not_cut_it() -> None:
    router, here = Router("one", at_two, lambda _: Far()), stream(2)
    router.attach(here)
    await hears(here, router, connected(1, "two"))
    with pytest.raises(StreamFenced):
        await hears(here, router, connected(3, "two"))


async def hears(here: AgentStream, router: Router, news: Change) -> None:
    with here.served():
        router.changed(news)
        await asyncio.sleep(0)


async def test_what_was_forwarded_is_not_forwarded_again() -> None:
    far = Far()
    router, dispatcher = Router("one", at_two, lambda _: far), DispatchStream("two", forwarded=True)
    router.open(dispatcher)
    await dispatched(router, dispatcher, wanted("task-1"))
    await dispatched(router, dispatcher, cancel("task-1"))
    assert await away(dispatcher) == {"task-1"}
    assert far.canceled == []


async def test_the_last_word_of_one_dispatcher_does_not_end_the_route_of_another() -> None:
    router, dispatchers = (
        Router("one", at_two, lambda _: Far()),
        [DispatchStream(each, forwarded=False) for each in "ab"],
    )
    router.attach(stream(1))
    for dispatcher in dispatchers:
        router.open(dispatcher)
    await dispatched(router, dispatchers[0], wanted("task-1"))
    final = pb.AgentOrders(agent_id="agent-1", acks=[agents_pb2.OutputAck(task_id="task-1", final=True)])
    await dispatched(router, dispatchers[1], pb.DispatchRequest(orders=[final]))
    said = agents_pb2.TaskReport(task_id="task-1", state=agents_pb2.TaskReport.STATE_RUNNING)
    await router.accept("agent-1", agents_pb2.Report(reports=[said]))
    assert [each.reports[0].task_id for each in (await told(dispatchers[0])).reports] == ["task-1"]


async def test_an_agent_that_comes_while_it_is_looked_for_is_told_all_at_once_and_in_order() -> None:
    line, router = Line(), Router("one", never, lambda _: Far())
    here, dispatcher = stream(1, line), DispatchStream("executor-1", forwarded=False)
    router.open(dispatcher)
    finding = asyncio.ensure_future(router.find(dispatcher))
    await router.dispatch(dispatcher, wanted("task-1", "task-2", script=b"true"))
    await eventually(lambda: not dispatcher.lookup.waiting.is_set())
    await router.dispatch(dispatcher, wanted("task-1", withdraw=True))
    await router.dispatch(dispatcher, cancel("task-2"))
    router.attach(here)
    await here.write()
    assert [(each.task_id, each.withdraw) for each in line.deliveries] == [("task-1", True), ("task-2", False)]
    assert line.canceled == ["task-2"]
    finding.cancel()


async def test_a_cancel_goes_the_known_way_at_once_and_again_after_what_is_looked_up() -> None:
    far, places = Far(), asyncio.Queue[dict[str, Location]]()
    router = Router("one", lambda _: places.get(), lambda _: far)
    dispatcher = DispatchStream("executor-1", forwarded=False)
    router.open(dispatcher)
    places.put_nowait(await at_two(["agent-1"]))
    await dispatched(router, dispatcher, wanted("task-1"))
    finding = asyncio.ensure_future(router.find(dispatcher))
    await router.dispatch(dispatcher, wanted("task-1"))
    await router.dispatch(dispatcher, cancel("task-1"))
    assert far.canceled == ["task-1"]
    places.put_nowait(await at_two(["agent-1"]))
    await eventually(lambda: far.canceled == ["task-1", "task-1"])
    finding.cancel()


async def test_what_is_stated_while_the_database_is_asked_is_looked_up_anew() -> None:
    places = asyncio.Queue[dict[str, Location]]()
    far, dispatcher = Far(), DispatchStream("executor-1", forwarded=False)
    router = Router("one", lambda _: places.get(), lambda _: far)
    router.open(dispatcher)
    await router.dispatch(dispatcher, wanted("task-1"))
    finding = asyncio.ensure_future(router.find(dispatcher))
    await eventually(lambda: not dispatcher.lookup.waiting.is_set())
    await router.dispatch(dispatcher, wanted("task-2"))  # because it was told that the agent has come
    places.put_nowait({"agent-1": Location(State.LOST, "", "")})  # how it was before
    await finding
    assert await away(dispatcher) == {"task-1"}
    places.put_nowait(await at_two(["agent-1"]))
    await router.find(dispatcher)
    assert far.delivered == ["task-2"]


async def test_tasks_for_which_too_much_waits_for_the_database_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    far = Far()
    monkeypatch.setattr(lookup, "MOST_BYTES", wanted("task-1").ByteSize())
    router, dispatcher = Router("one", at_two, lambda _: far), DispatchStream("executor-1", forwarded=False)
    router.open(dispatcher)
    await router.dispatch(dispatcher, wanted("task-1"))
    await router.dispatch(dispatcher, wanted("task-2"))
    assert await away(dispatcher) == {"task-2"}
    await router.find(dispatcher)
    await dispatched(router, dispatcher, wanted("task-3"))
    assert far.delivered == ["task-1", "task-3"]
