"""What the watcher says of tasks in a real journal."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peers.eventually import eventually
from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline_agent import watcher as watcher_module
from twinline_agent.convert import rejected
from twinline_agent.watcher import CHUNK, MESSAGE, WINDOW, Watcher
from twinline_journal import Journal, State, TaskSpec

SECOND = 1.0


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """What a script waits for, no longer than the test."""
    yield tmp_path / "gate"
    (tmp_path / "gate").touch()


async def run(journal: Journal, task_id: str, script: str) -> None:
    """Run a task to its end."""
    journal.start(TaskSpec(task_id, script.encode()))
    await eventually(lambda: journal.status(task_id).state is State.FINISHED)


async def test_a_message_is_bounded_and_the_end_comes_with_the_last_byte(journal: Journal) -> None:
    await run(journal, "task-1", f"head -c {WINDOW + CHUNK + 7} /dev/zero")
    watcher, received = Watcher(journal), 0
    watcher.follow("task-1", 0)
    while received < WINDOW + CHUNK + 7:
        reports = await watcher.next_reports(SECOND)
        assert sum(report.ByteSize() for report in reports) <= MESSAGE + CHUNK + 4096
        for report in reports:
            assert report.offset == received
            received += len(report.data)
            over = report.state == pb.TaskReport.STATE_FINISHED
            assert over == (received == WINDOW + CHUNK + 7)
        watcher.acknowledge("task-1", received)


async def test_what_is_known_is_not_told_again_unless_asked_for(journal: Journal) -> None:
    await run(journal, "task-1", "echo hi")
    watcher = Watcher(journal)
    watcher.follow("task-1", 0)
    assert [report.data for report in await watcher.next_reports(SECOND)] == [b"hi\n"]
    assert await watcher.next_reports(0.05) == []
    watcher.follow("task-1", 3)
    (report,) = await watcher.next_reports(SECOND)
    assert (report.state, report.offset, report.data) == (pb.TaskReport.STATE_FINISHED, 3, b"")


async def test_a_task_that_ends_while_it_is_young_is_one_report(
    journal: Journal, gate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher_module, "SETTLE", 60.0)
    journal.start(TaskSpec("task-1", f"until [ -e '{gate}' ]; do sleep 0.02; done; echo hi".encode()))
    watcher = Watcher(journal)
    watcher.follow("task-1", 0)
    assert await watcher.next_reports(0.3) == []
    gate.touch()
    (report,) = await watcher.next_reports(20 * SECOND)
    assert (report.state, report.data) == (pb.TaskReport.STATE_FINISHED, b"hi\n")


async def test_a_window_that_is_full_opens_with_an_acknowledgement(journal: Journal) -> None:
    await run(journal, "task-1", f"head -c {2 * WINDOW} /dev/zero")
    watcher = Watcher(journal)
    watcher.follow("task-1", 0)
    sent = 0
    while reports := await watcher.next_reports(0.05):
        sent += sum(len(report.data) for report in reports)
    assert sent == WINDOW
    watcher.acknowledge("task-1", 10)
    assert sum(len(report.data) for report in await watcher.next_reports(SECOND)) == 10


async def test_one_unreadable_task_does_not_silence_the_others(journal: Journal, tmp_path: Path) -> None:
    await run(journal, "task-1", "echo hi")
    await run(journal, "task-2", "echo hi")
    output = tmp_path / "journal" / "tasks" / "task-1" / "output"
    output.unlink()
    output.mkdir()
    watcher = Watcher(journal)
    watcher.follow("task-1", 0)
    watcher.follow("task-2", 0)
    assert [report.task_id for report in await watcher.next_reports(SECOND)] == ["task-2"]


def record(journal: Path, size: str, *, started: str = "1") -> None:
    """What a script can write to its own journal: a record of its end."""
    text = f"reason=exited status=0 signal=0 size={size} dropped=0 started={started} ended=2\n"
    (journal / "tasks" / "task-1" / "exit").write_text(text)


async def all_said(watcher: Watcher) -> list[pb.TaskReport]:
    """Its reports, of no more looks than a watcher with nothing to say may need."""
    said: list[pb.TaskReport] = []
    for _ in range(20):
        if not (reports := await watcher.next_reports(2 * SECOND)):
            return said
        said += reports
    raise AssertionError("it never stops talking")


async def test_output_that_a_record_promises_and_nobody_wrote_ends_the_task_once(
    journal: Journal, tmp_path: Path
) -> None:
    await run(journal, "task-1", "echo hi")
    record(tmp_path / "journal", "1000")
    watcher = Watcher(journal)
    watcher.follow("task-1", 0)
    first, last = await all_said(watcher)
    assert (first.state, first.data) == (pb.TaskReport.STATE_RUNNING, b"hi\n")
    assert (last.state, last.end) == (pb.TaskReport.STATE_INTERRUPTED, pb.TaskReport.END_JOURNAL_UNREADABLE)
    assert (last.offset, last.output_size, last.data) == (3, 3, b"")


@pytest.mark.parametrize("put_there", [Path.unlink, lambda output: (output.unlink(), output.mkdir())])
async def test_output_that_is_gone_ends_the_task_once(
    journal: Journal, tmp_path: Path, put_there: Callable[[Path], object]
) -> None:
    await run(journal, "task-1", "echo hi")
    put_there(tmp_path / "journal" / "tasks" / "task-1" / "output")
    watcher = Watcher(journal)
    watcher.follow("task-1", 0)
    (report,) = await all_said(watcher)
    assert (report.state, report.end) == (pb.TaskReport.STATE_INTERRUPTED, pb.TaskReport.END_JOURNAL_UNREADABLE)


async def test_output_that_comes_late_is_waited_for(journal: Journal, tmp_path: Path) -> None:
    await run(journal, "task-1", "echo hi")
    record(tmp_path / "journal", "6")
    watcher = Watcher(journal)
    watcher.follow("task-1", 0)
    assert [report.data for report in await watcher.next_reports(SECOND)] == [b"hi\n"]
    assert await watcher.next_reports(0.05) == []
    with (tmp_path / "journal" / "tasks" / "task-1" / "output").open("a") as output:
        output.write("ho\n")
    (report,) = await watcher.next_reports(SECOND)
    assert (report.state, report.data) == (pb.TaskReport.STATE_FINISHED, b"ho\n")


async def test_output_cut_off_under_a_running_task_is_waited_for_in_peace(
    journal: Journal, tmp_path: Path, gate: Path
) -> None:
    script = f"echo 12345; until [ -e {gate} ]; do sleep 0.05; done"
    journal.start(TaskSpec("task-1", script.encode()))
    watcher, received = Watcher(journal), b""
    watcher.follow("task-1", 0)
    while received != b"12345\n":
        received += b"".join(report.data for report in await watcher.next_reports(SECOND))
    os.truncate(tmp_path / "journal" / "tasks" / "task-1" / "output", 2)
    assert await watcher.next_reports(0.5) == []
    gate.touch()
    (report,) = await watcher.next_reports(10 * SECOND)
    assert (report.state, report.offset, report.data) == (pb.TaskReport.STATE_FINISHED, 6, b"")
    assert await watcher.next_reports(0.05) == []


@pytest.mark.parametrize(("size", "started"), [("9" * 30, "1"), ("0", "1e300"), ("0", "inf"), ("0", "nan")])
async def test_numbers_that_no_report_can_hold_end_the_task_and_harm_no_other(
    journal: Journal, tmp_path: Path, size: str, started: str
) -> None:
    await run(journal, "task-1", "true")
    await run(journal, "task-2", "true")
    record(tmp_path / "journal", size, started=started)
    watcher = Watcher(journal)
    watcher.follow("task-1", 0)
    watcher.follow("task-2", 0)
    bad, good = await watcher.next_reports(SECOND)
    assert (bad.state, bad.end) == (pb.TaskReport.STATE_INTERRUPTED, pb.TaskReport.END_JOURNAL_UNREADABLE)
    assert good.state == pb.TaskReport.STATE_FINISHED


async def test_a_rejection_is_told_once_and_forgotten_with_the_stream(journal: Journal) -> None:
    watcher = Watcher(journal)
    watcher.say(rejected("task-1", "no"))
    assert [report.message for report in await watcher.next_reports(SECOND)] == ["no"]
    watcher.say(rejected("task-2", "no"))
    watcher.leave_all()
    assert await watcher.next_reports(0.05) == []
