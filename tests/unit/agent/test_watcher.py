"""What the watcher says of tasks in a real journal."""

from pathlib import Path

import pytest

from tests.peers.eventually import eventually
from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline_agent.convert import rejected
from twinline_agent.watcher import CHUNK, MESSAGE, WINDOW, Watcher
from twinline_journal import Journal, State, TaskSpec

SECOND = 1.0


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


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


async def test_a_rejection_is_told_once_and_forgotten_with_the_stream(journal: Journal) -> None:
    watcher = Watcher(journal)
    watcher.say(rejected("task-1", "no"))
    assert [report.message for report in await watcher.next_reports(SECOND)] == ["no"]
    watcher.say(rejected("task-2", "no"))
    watcher.leave_all()
    assert await watcher.next_reports(0.05) == []
