"""What is said of tasks that wait."""

import io

import pytest

from twinline.executor.v1 import runs_pb2 as pb
from twinline_cli.following import _Waits
from twinline_cli.progress import Progress


def waiting(number: int, reason: str = "AGENT_OFFLINE") -> pb.Task:
    return pb.Task(id=f"task-{number}", target_name=f"web-{number}", state=pb.Task.STATE_PENDING, reason=reason)


def test_each_reason_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    waits = _Waits("run-1")
    for task in (waiting(1, ""), waiting(1), waiting(1), waiting(1, "KEY_BUSY"), waiting(1)):
        waits.note([task], Progress(io.StringIO()))
    said = capsys.readouterr().err.splitlines()
    assert said == ["twinline: web-1 waits: AGENT_OFFLINE", "twinline: web-1 waits: KEY_BUSY"]


def test_of_many_a_handful_is_named_and_the_others_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    waits = _Waits("run-1")
    for _ in range(2):
        waits.note([waiting(number) for number in range(1000)], Progress(io.StringIO()))
    *named, rest = capsys.readouterr().err.splitlines()
    assert len(named) == 5
    assert rest == "twinline: and 995 more; see them with `twinline runs show run-1`"


def test_progress_names_the_first_that_waits_until_it_starts() -> None:
    waits, progress = _Waits("run-1"), Progress(io.StringIO())
    waits.note([waiting(1), waiting(2, "PORT_UNREACHABLE")], progress)
    assert waits.first() == "web-1 waits: AGENT_OFFLINE"
    waits.note([pb.Task(id="task-1", state=pb.Task.STATE_RUNNING)], progress)
    assert waits.first() == "web-2 waits: PORT_UNREACHABLE"
    waits.note([pb.Task(id="task-2", state=pb.Task.STATE_SUCCEEDED)], progress)
    assert waits.first() == ""
