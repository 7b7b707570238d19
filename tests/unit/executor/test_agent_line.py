"""What the agent's line makes of reports. The gateway is one that says what a test wants it to say."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from tests.peers.eventually import eventually
from twinline.agent_gateway.v1 import agents_pb2, fleet_pb2, fleet_pb2_grpc
from twinline_executor import active, agent_line, agent_outbox
from twinline_executor.active import ActiveRun, ActiveTask
from twinline_executor.agent_line import TICK, AgentLine
from twinline_executor.changes import Changes
from twinline_executor.recorder import Recorder
from twinline_executor.rows import Run, Task
from twinline_executor.settings import Settings
from twinline_executor.states import Line, State
from twinline_executor.store.output import OutputStore
from twinline_executor.store.results import ResultStore
from twinline_executor.store.runs import RunStore
from twinline_kit import clock, db

Report = agents_pb2.TaskReport
AT = datetime.now(UTC)


class Gateway(fleet_pb2_grpc.FleetServiceServicer):
    """Passes reports on, each in a message of its own, once work was stated."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, Report]] = []
        self.requests: list[fleet_pb2.DispatchRequest] = []
        self.always: list[tuple[str, Report]] = []

    async def Dispatch(self, requests: AsyncIterator[fleet_pb2.DispatchRequest], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            self.requests.append(request)
            if request.batches:
                self.reports += self.always
            while request.batches and self.reports:
                agent_id, report = self.reports.pop(0)
                heard = fleet_pb2.AgentReport(agent_id=agent_id, reports=[report])
                yield fleet_pb2.DispatchResponse(reports=[heard])


@pytest.fixture
async def gateway() -> Gateway:
    """The gateway that the line talks to."""
    return Gateway()  # type: ignore[abstract]  # the line calls nothing else


@pytest.fixture
async def line(gateway: Gateway, tmp_path: Path) -> AsyncIterator[AgentLine]:
    """A line to that gateway; what it hears is written nowhere."""
    server = grpc.aio.server()
    fleet_pb2_grpc.add_FleetServiceServicer_to_server(gateway, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    files: dict[str, Any] = dict.fromkeys(("certificate_file", "key_file", "ca_file"), tmp_path)
    settings = Settings(database_url=f"sqlite:///{tmp_path / 'none.db'}", restate_after=1.0, **files)
    engine = db.open(settings.database_url)
    recorder = Recorder(ResultStore(engine, "a"), OutputStore(engine), Changes(), clock=clock.now, max_output=1 << 20)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        line = AgentLine(channel, "a", RunStore(engine), recorder, settings)
        running = asyncio.ensure_future(line.run())
        yield line
        running.cancel()
        await asyncio.wait({running})
    await server.stop(None)
    engine.dispose()


def new_task(
    task_id: str = "task-1", *, deadline: float = float("inf"), adopted: bool = False, **fields: Any
) -> ActiveTask:
    """A task of agent-1 that nothing is known of yet."""
    run = Run("run-1", "r1", "", 0, "true", "", {}, None, 300.0, "me", AT, **fields)
    row = Task(task_id, run.id, "t1", "app-1", Line.AGENT, "agent-1", AT)
    return ActiveTask(row, ActiveRun(run, deadline), adopted=adopted)


async def told(line: AgentLine, gateway: Gateway, *reports: tuple[str, Report]) -> ActiveTask:
    """What becomes of task-1 of agent-1 with these reports."""
    task = new_task()
    gateway.reports += reports
    line.carry([task])
    await eventually(lambda: task.settled)
    return task


def finished(status: int) -> Report:
    return Report(task_id="task-1", state=Report.STATE_FINISHED, end=Report.END_EXITED, exit_status=status)


async def test_what_an_agent_says_of_the_task_of_another_is_dropped(line: AgentLine, gateway: Gateway) -> None:
    task = await told(line, gateway, ("agent-2", finished(0)), ("agent-1", finished(3)))
    assert (task.state, task.exit_status) == (State.FAILED, 3)


@pytest.mark.parametrize(
    ("end", "state"), [(Report.END_CANCELED, State.UNREACHABLE), (Report.END_TIMED_OUT, State.TIMED_OUT)]
)
async def test_what_never_started_has_no_exit_status(
    line: AgentLine, gateway: Gateway, end: Report.End.ValueType, state: State
) -> None:
    task = await told(line, gateway, ("agent-1", Report(task_id="task-1", state=Report.STATE_FINISHED, end=end)))
    assert (task.state, task.exit_status, task.start_time) == (state, None, None)


async def test_an_unreadable_journal_ends_a_task_whatever_output_it_promises(line: AgentLine, gateway: Gateway) -> None:
    unreadable = Report(
        task_id="task-1",
        state=Report.STATE_INTERRUPTED,
        end=Report.END_JOURNAL_UNREADABLE,
        output_size=4096,
        data=b"begun",
    )
    task = await told(line, gateway, ("agent-1", unreadable))
    assert (task.state, task.reason, task.received) == (State.UNKNOWN, "JOURNAL_UNREADABLE", 5)


async def test_a_report_that_fails_cuts_off_nobody(
    line: AgentLine, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(active, "INTERRUPTIONS", {})
    interrupted = Report(task_id="task-1", state=Report.STATE_INTERRUPTED, end=Report.END_PROCESS_GONE)
    task = await told(line, gateway, ("agent-1", interrupted), ("agent-1", finished(3)))
    assert (task.state, task.exit_status) == (State.FAILED, 3)
    assert [request.HasField("hello") for request in gateway.requests].count(True) == 1


async def test_what_agents_still_hold_cuts_off_nobody_when_it_cannot_be_looked_up(
    line: AgentLine, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    held = Report(task_id="task-0", state=Report.STATE_FINISHED, end=Report.END_EXITED)
    task = await told(line, gateway, ("agent-1", held), ("agent-1", finished(3)))
    assert (task.state, task.exit_status) == (State.FAILED, 3)
    assert "tasks that agents still hold not looked up" in caplog.text  # as the database has no tables


@pytest.mark.parametrize(("noted", "told"), [(1000, 1000), (None, 64 << 20)])
async def test_a_delivery_has_the_limit_of_output_that_its_run_was_started_with(
    line: AgentLine, gateway: Gateway, noted: int | None, told: int
) -> None:
    line.carry([new_task(max_output=noted)])
    await eventually(lambda: any(request.batches for request in gateway.requests))
    (batch,) = (batch for request in gateway.requests for batch in request.batches)
    assert batch.work.max_output == told


REJECTED = Report(task_id="task-1", state=Report.STATE_REJECTED, message="too many wait")


async def test_no_room_for_a_question_does_not_end_what_runs(line: AgentLine, gateway: Gateway) -> None:
    running = Report(task_id="task-1", state=Report.STATE_RUNNING)
    task = await told(line, gateway, ("agent-1", running), ("agent-1", REJECTED), ("agent-1", finished(3)))
    assert (task.state, task.exit_status) == (State.FAILED, 3)


async def test_no_room_for_a_withdrawal_is_no_promise_that_nothing_starts(line: AgentLine, gateway: Gateway) -> None:
    task = new_task(deadline=0.0, adopted=True)
    gateway.reports.append(("agent-1", REJECTED))
    line.carry([task])
    await eventually(lambda: task.state is State.UNKNOWN)
    assert not task.settled
    gateway.always = [("agent-1", finished(3))]  # what was sent in time
    await eventually(lambda: task.state is State.FAILED)


async def test_no_room_for_another_delivery_does_not_end_what_is_on_its_host(
    line: AgentLine, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_line, "UNCLAIMED", 0.0)
    task = new_task()
    gateway.reports.append(("agent-1", Report(task_id="task-1", state=Report.STATE_ACCEPTED)))
    line.carry([task])
    await eventually(lambda: stated(gateway, "task-1") == [True, True])
    gateway.reports += [("agent-1", REJECTED), ("agent-1", finished(3))]
    await eventually(lambda: task.settled)
    assert (task.state, task.exit_status) == (State.FAILED, 3)


def acknowledged(gateway: Gateway) -> list[tuple[str, int, bool]]:
    """What the gateway was told is stored."""
    return [
        (ack.task_id, ack.offset, ack.final)
        for request in gateway.requests
        for orders in request.orders
        for ack in orders.acks
    ]


async def test_only_what_is_stored_is_acknowledged(line: AgentLine, gateway: Gateway) -> None:
    task = new_task()
    gateway.reports.append(
        ("agent-1", Report(task_id="task-1", state=Report.STATE_RUNNING, output_size=6, data=b"stored"))
    )
    line.carry([task])
    await eventually(lambda: task.received == 6)
    assert acknowledged(gateway) == []
    task.stored, task.pending_bytes = 4, 2
    line.stored(task, False)
    await eventually(lambda: acknowledged(gateway) == [("task-1", 4, False)])


async def test_the_last_word_on_a_task_is_said_once_its_end_is_stored(
    line: AgentLine, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_outbox, "LAZY", 0.0)
    task = await told(line, gateway, ("agent-1", finished(0)))
    task.stored = 4
    line.stored(task, False)
    await eventually(lambda: acknowledged(gateway) == [("task-1", 4, False)])
    line.stored(task, True)
    await eventually(lambda: acknowledged(gateway)[1:] == [("task-1", 4, True)])


async def test_what_nobody_answers_is_stated_again(line: AgentLine, gateway: Gateway) -> None:
    line.carry([new_task()])
    await eventually(lambda: len(stated(gateway, "task-1")) >= 2)
    assert all(work for work in stated(gateway, "task-1"))


async def test_an_agent_that_never_has_what_it_was_sent_is_sent_it_once_a_tick_and_no_more(
    line: AgentLine, gateway: Gateway
) -> None:
    gateway.always = [("agent-1", Report(task_id="task-1", state=Report.STATE_ABSENT))]
    began = time.monotonic()
    line.carry([new_task()])
    await eventually(lambda: len(stated(gateway, "task-1")) >= 4)
    assert time.monotonic() - began > 2 * TICK


async def test_of_a_task_that_was_dropped_nothing_is_said(line: AgentLine, gateway: Gateway) -> None:
    task, other = new_task(), new_task("task-2")
    line.carry([task])
    line.drop(task)
    line.carry([other])
    await eventually(lambda: stated(gateway, "task-2"))
    assert stated(gateway, "task-1") == []


def stated(gateway: Gateway, task_id: str) -> list[bool]:
    """For each time that a task was stated: whether with its work."""
    return [
        batch.HasField("work")
        for request in gateway.requests
        for batch in request.batches
        for task in batch.tasks
        if task.task_id == task_id
    ]
