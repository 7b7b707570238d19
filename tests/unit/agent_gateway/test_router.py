"""Who gets what, on one replica and by way of others."""

import asyncio
import resource
from pathlib import Path
from typing import cast

import pytest

import twinline_agent_gateway.router
from tests.unit.agent_gateway.routing import Far, Line, at_two, away, cancel, dispatched, stream, told, wanted
from twinline.agent_gateway.v1 import agents_pb2
from twinline.agent_gateway.v1 import fleet_pb2 as pb
from twinline_agent_gateway.dispatch_streams import DispatchStream
from twinline_agent_gateway.errors import AgentRevoked, StreamFenced
from twinline_agent_gateway.router import Router
from twinline_agent_gateway.store import Change
from twinline_agent_gateway.streams import MOST_DELIVERIES, AgentStream, Context


def connected(number: int, replica: str) -> Change:
    return Change(number, "agent-1", replica, epoch=number, connected=True, revoked=False)


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


async def test_of_the_revoked_only_the_latest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twinline_agent_gateway.router, "MOST_REVOKED", 2)
    router = Router("one", at_two, lambda _: Far())
    for number in range(3):
        router.revoked(f"agent-{number}")
    streams = [AgentStream(f"agent-{number}", 1, cast("Context", None), asyncio.Queue()) for number in range(3)]
    router.attach(streams[0])
    for each in streams[1:]:
        with pytest.raises(AgentRevoked):
            router.attach(each)


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


async def test_a_report_that_waited_for_room_does_not_end_the_route_that_its_task_has_by_now() -> None:
    slow, quick = (DispatchStream(name, forwarded=False) for name in ("slow", "quick"))
    router = Router("one", at_two, lambda _: Far())
    router.attach(stream(1))
    for dispatcher in (slow, quick):
        router.open(dispatcher)
    await dispatched(router, slow, wanted("task-1"))
    slow.report("agent-2", agents_pb2.TaskReport(data=bytes(8 << 20)))
    absent = agents_pb2.TaskReport(task_id="task-1", state=agents_pb2.TaskReport.STATE_ABSENT)
    waiting = asyncio.ensure_future(router.accept("agent-1", agents_pb2.Report(reports=[absent])))
    await asyncio.sleep(0)  # it has its turn
    await dispatched(router, quick, wanted("task-1", script=b"true"))
    router.close(slow)
    await waiting
    said = agents_pb2.TaskReport(task_id="task-1", state=agents_pb2.TaskReport.STATE_RUNNING)
    await router.accept("agent-1", agents_pb2.Report(reports=[said]))
    assert [report.task_id for report in (await told(quick)).reports[0].reports] == ["task-1"]


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def test_a_report_that_waits_does_not_keep_what_came_with_it_in_memory() -> None:
    router, dispatcher = Router("one", at_two, lambda _: Far()), DispatchStream("executor-1", forwarded=False)
    router.attach(stream(1))
    router.open(dispatcher)
    await router.dispatch(dispatcher, wanted("task-1"))
    waits = agents_pb2.TaskReport(task_id="task-1", state=agents_pb2.TaskReport.STATE_RUNNING)
    gone = agents_pb2.TaskReport(task_id="task-2", data=bytes(2 << 20))
    message = agents_pb2.Report(reports=[waits, gone]).SerializeToString()
    before = resident()
    for _ in range(50):
        await router.accept("agent-1", agents_pb2.Report.FromString(message))
    assert resident() - before < 25 << 20
    assert len((await told(dispatcher)).reports[0].reports) == 50
