"""When what becomes of tasks is written down."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.peers.eventually import eventually
from tests.peers.outages import away
from twinline_executor import recorder as recorder_module
from twinline_executor.active import ActiveRun, ActiveTask, End
from twinline_executor.changes import Changes
from twinline_executor.recorder import Recorder
from twinline_executor.rows import Run, Task
from twinline_executor.states import Line, State
from twinline_executor.store.output import OutputStore
from twinline_executor.store.results import ResultStore
from twinline_executor.store.runs import RunStore
from twinline_journal import Reason
from twinline_kit import clock, db

AT = datetime(2026, 1, 2, tzinfo=UTC)
RUN = Run("run-1", "r1", "", 0, "true", "", {}, None, 300.0, "me", AT, owner="a")
ROW = Task("task-1", "run-1", "t1", "web-1", Line.SSH, "", AT)
END = End(Reason.EXITED, 0, 0, truncated=False, started=AT, ended=AT)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    """A database with one run of one task."""
    engine = db.open(f"sqlite:///{tmp_path / 'executor.db'}")
    db.migrate(engine, "twinline_executor")
    RunStore(engine).create(RUN, [ROW])
    yield engine
    engine.dispose()


@pytest.fixture
def task() -> ActiveTask:
    """That task, as it is followed."""
    run = ActiveRun(RUN, deadline=float("inf"), waiting=1)
    run.tasks["task-1"] = ActiveTask(ROW, run, adopted=False)
    return run.tasks["task-1"]


@asynccontextmanager
async def recording(engine: sa.Engine) -> AsyncIterator[tuple[Recorder, "asyncio.Future[None]"]]:
    """A recorder at work."""
    recorder = Recorder(ResultStore(engine, "a"), OutputStore(engine), Changes(), clock=clock.now, max_output=1 << 20)
    running = asyncio.ensure_future(recorder.run())
    yield recorder, running
    running.cancel()
    await asyncio.wait({running})


async def test_a_task_that_ends_at_once_is_written_once(engine: sa.Engine, task: ActiveTask) -> None:
    written: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *call: written.append(call[2]))
    async with recording(engine) as (recorder, _):
        task.is_on_host(AT, running=True)
        recorder.note(task)
        recorder.note_output(task, 0, b"hello")
        for _ in range(3):
            await asyncio.sleep(0)  # the recorder has its turn
        task.end(END)
        recorder.note(task)
        await recorder.settled(within=20)
    assert RunStore(engine).task("task-1").state is State.SUCCEEDED
    assert len([statement for statement in written if statement.startswith("UPDATE tasks")]) == 1


def many(engine: sa.Engine, count: int) -> list[ActiveTask]:
    """The tasks of another run, as they are followed."""
    rows = [ROW._replace(id=f"many-{number}", run_id="run-2", target_name=f"web-{number}") for number in range(count)]
    stored = RunStore(engine).create(replace(RUN, id="run-2", request_id="r2"), rows)
    run = ActiveRun(stored, deadline=float("inf"), waiting=count)
    run.tasks = {row.id: ActiveTask(row, run, adopted=False) for row in rows}
    return list(run.tasks.values())


@pytest.mark.parametrize("count", [2, 3])
async def test_results_gather_and_the_last_one_of_a_run_waits_for_nothing(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(recorder_module, "GATHER", 60.0)
    first, second, *rest = many(engine, count)
    loop, statements = asyncio.get_running_loop(), 0

    async with recording(engine) as (recorder, _):

        def end(task: ActiveTask) -> None:
            task.end(END)
            recorder.note(task)

        def storing(*call: Any) -> None:
            nonlocal statements
            if call[2].startswith("UPDATE tasks"):
                statements += 1
                if statements == 1:
                    loop.call_soon_threadsafe(end, second)  # while the first is being stored

        sa.event.listen(engine, "before_cursor_execute", storing)
        end(first)
        await eventually(lambda: RunStore(engine).task(first.id).state is State.SUCCEEDED)
        for last in rest:
            assert RunStore(engine).task(second.id).state is State.PENDING
            end(last)
        await eventually(lambda: RunStore(engine).counts(["run-2"])["run-2"] == {State.SUCCEEDED: count}, within=20)
    assert statements == 2


async def test_a_run_of_more_results_than_one_transaction_takes_waits_for_nothing(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "GATHER", 60.0)
    monkeypatch.setattr(recorder_module, "BATCH_TASKS", 4)
    async with recording(engine) as (recorder, _):
        for task in many(engine, 10):
            task.end(END)
            recorder.note(task)
        await eventually(lambda: RunStore(engine).counts(["run-2"])["run-2"] == {State.SUCCEEDED: 10}, within=20)


async def test_much_output_waits_for_no_other(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "GATHER", 60.0)
    task, other = many(engine, 2)
    loop, piece = asyncio.get_running_loop(), bytes(recorder_module.MUCH_OUTPUT)

    async with recording(engine) as (recorder, _):

        def storing(*call: Any) -> None:
            if call[2].startswith("UPDATE tasks") and not other.pending_bytes:
                loop.call_soon_threadsafe(recorder.note_output, other, 0, piece)  # while the first is being stored

        sa.event.listen(engine, "before_cursor_execute", storing)
        recorder.note_output(task, 0, piece)
        await eventually(lambda: RunStore(engine).task(other.id).output_size == len(piece), within=20)


async def test_an_end_that_comes_while_what_was_before_is_stored_is_told_once_it_is_stored_itself(
    engine: sa.Engine, task: ActiveTask
) -> None:
    loop, told = asyncio.get_running_loop(), list[tuple[bool, bool]]()

    async with recording(engine) as (recorder, _):

        def end() -> None:
            if not task.settled:
                task.end(END)
                recorder.note(task)

        recorder.on_stored = lambda task, settled: told.append((settled, RunStore(engine).task(task.id).settled))
        sa.event.listen(engine, "commit", lambda _: loop.call_soon_threadsafe(end))
        recorder.note_output(task, 0, b"begun")
        await eventually(lambda: len(told) == 2)
    assert told == [(False, False), (True, True)]


async def test_a_task_that_goes_on_is_written_soon(engine: sa.Engine, task: ActiveTask) -> None:
    async with recording(engine) as (recorder, _):
        task.is_on_host(AT, running=True)
        recorder.note(task)
        await eventually(lambda: RunStore(engine).task("task-1").state is State.RUNNING)


async def test_what_comes_up_last_is_stored_while_the_loop_goes_on(
    engine: sa.Engine, task: ActiveTask, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "executor.db", isolation_level=None)
    async with recording(engine) as (recorder, running):
        await asyncio.sleep(0)
        other.execute("BEGIN IMMEDIATE")
        task.end(END)
        recorder.note(task)
        running.cancel()
        await eventually(lambda: engine.pool.checkedout() > 0)  # type: ignore[attr-defined]
        other.execute("ROLLBACK")
        await asyncio.wait({running})
    assert RunStore(engine).task("task-1").state is State.SUCCEEDED
    other.close()


def failures(caplog: pytest.LogCaptureFixture) -> int:
    return [record.message for record in caplog.records].count("results could not be stored, will retry")


async def test_what_could_not_be_stored_before_the_end_is_not_followed_by_what_came_later(
    engine: sa.Engine, task: ActiveTask, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "STOPPING", 0.3)
    async with recording(engine) as (recorder, running):
        with away(engine, "tasks"):
            task.is_on_host(AT, running=True)
            recorder.note_output(task, 0, b"first")
            await eventually(lambda: failures(caplog) == 3)  # the next attempt is one second away
            recorder.note_output(task, 5, b"second")
            running.cancel()
        await asyncio.wait({running})
    assert RunStore(engine).task("task-1").output_size == 0
    assert OutputStore(engine).read("task-1", 0, 100) == b""


async def test_of_what_was_released_nothing_is_stored_that_waits_or_comes(
    engine: sa.Engine, task: ActiveTask, caplog: pytest.LogCaptureFixture
) -> None:
    async with recording(engine) as (recorder, _):
        with away(engine, "tasks"):
            task.is_on_host(AT, running=True)
            recorder.note_output(task, 0, b"first")
            await eventually(lambda: failures(caplog) > 0)
            recorder.note_output(task, 5, b"second")
            task.run.released = True
            recorder.release(task.run)
            recorder.note_output(task, 11, b"third")
        await recorder.settled(within=20)
    assert RunStore(engine).task("task-1").state is State.PENDING
    assert OutputStore(engine).read("task-1", 0, 100) == b""


async def test_output_of_what_was_released_takes_no_room(
    engine: sa.Engine, task: ActiveTask, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "WAITING_BYTES", 10)
    async with recording(engine) as (recorder, _):
        with away(engine, "tasks"):
            recorder.note_output(task, 0, b"eight by")
            await eventually(lambda: failures(caplog) > 0)
            recorder.note_output(task, 8, b"tes each")
            task.run.released = True
            recorder.release(task.run)
            async with asyncio.timeout(20):
                await recorder.room()
