"""What the agent's line makes of reports. The gateway is one that says what a test wants it to say."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from tests.peers.eventually import eventually
from twinline.agent_gateway.v1 import agents_pb2, fleet_pb2, fleet_pb2_grpc
from twinline_executor.active import ActiveRun, ActiveTask
from twinline_executor.agent_line import AgentLine
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
AT = datetime(2026, 1, 2, tzinfo=UTC)


class Gateway(fleet_pb2_grpc.FleetServiceServicer):
    """Passes reports on, each in a message of its own, once work was stated."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, Report]] = []

    async def Dispatch(self, requests: AsyncIterator[fleet_pb2.DispatchRequest], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
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
    settings = Settings(database_url=f"sqlite:///{tmp_path / 'none.db'}", **files)
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


async def told(line: AgentLine, gateway: Gateway, *reports: tuple[str, Report]) -> ActiveTask:
    """What becomes of task-1 of agent-1 with these reports."""
    run = Run("run-1", "r1", "", 0, "true", "", {}, None, 300.0, "me", AT)
    row = Task("task-1", run.id, "t1", "app-1", Line.AGENT, "agent-1", AT)
    task = ActiveTask(row, ActiveRun(run, deadline=float("inf")), adopted=False)
    gateway.reports += reports
    line.carry([task])
    await eventually(lambda: task.settled)
    return task


def finished(status: int) -> Report:
    return Report(task_id="task-1", state=Report.STATE_FINISHED, end=Report.END_EXITED, exit_status=status)


async def test_what_an_agent_says_of_the_task_of_another_is_dropped(line: AgentLine, gateway: Gateway) -> None:
    task = await told(line, gateway, ("agent-2", finished(0)), ("agent-1", finished(3)))
    assert (task.state, task.exit_status) == (State.FAILED, 3)


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
