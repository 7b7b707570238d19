"""What the exit code says about a run."""

from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata

from twinline.executor.v1 import runs_pb2 as pb
from twinline_cli.errors import CliError, ExitCode, report
from twinline_cli.results import exit_code, summary, took
from twinline_executor.errors import InputMalformed, InputMissing, SelectionEmpty
from twinline_kit import errors


@pytest.mark.parametrize(
    ("counts", "code"),
    [
        ({"succeeded": 3}, ExitCode.SUCCEEDED),
        ({"succeeded": 2, "failed": 1}, ExitCode.FAILED),
        ({"refused": 1}, ExitCode.REFUSED),
        ({"timed_out": 1, "unknown": 1}, ExitCode.UNKNOWN),
        ({"canceled": 2}, ExitCode.CANCELED),
        ({"succeeded": 1, "unreachable": 1}, ExitCode.UNREACHABLE),
        ({"unreachable": 1, "refused": 1}, ExitCode.FAILED),
    ],
)
def test_a_run_exits_with_what_its_failures_have_in_common(counts: dict[str, int], code: int) -> None:
    assert exit_code(pb.TaskCounts(**counts)) is code


def test_a_summary_names_only_what_there_is() -> None:
    assert summary(pb.TaskCounts(total=3, succeeded=2, timed_out=1)) == "2 of 3 succeeded, 1 timed out"


def test_a_task_that_never_started_took_no_time() -> None:
    task = pb.Task(end_time=Timestamp(seconds=1_700_000_000))
    assert took(task) == ""
    task.start_time.FromSeconds(1_699_999_998)
    assert took(task) == "2.0 s"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotFound("no key a"), ExitCode.USAGE),
        (SelectionEmpty("no target matches"), ExitCode.REFUSED),
        (InputMissing("no value for PORT"), ExitCode.REFUSED),
        (InputMalformed("no value can be read"), ExitCode.USAGE),
        (errors.FailedPrecondition("not now"), ExitCode.REFUSED),
        (errors.PermissionDenied("not you"), ExitCode.REFUSED),
        (errors.DeadlineExceeded("too late"), ExitCode.UNKNOWN),
        (errors.Unavailable("gone"), ExitCode.UNREACHABLE),
        (CliError("no", ExitCode.CANCELED), ExitCode.CANCELED),
    ],
)
def test_an_error_is_one_line_and_a_code(
    error: errors.Error | CliError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error) is code
    assert capsys.readouterr().err == f"twinline: {error.message}\n"


def test_a_connection_that_broke_leaves_the_outcome_open(capsys: pytest.CaptureFixture[str]) -> None:
    broken = errors.from_rpc_error(AioRpcError(StatusCode.CANCELLED, Metadata(), Metadata(), "Cancelling all calls"))
    assert report(broken) is ExitCode.UNKNOWN
    assert capsys.readouterr().err == (
        "twinline: the suite went away before it answered; look whether it was done when it is back\n"
    )


def test_a_bug_is_one_line_and_its_traceback_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWINLINE_HOME", str(tmp_path))
    (tmp_path / "logs").mkdir()
    assert report(ZeroDivisionError("x / 0")) is ExitCode.UNKNOWN
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(tmp_path / "logs" / "cli.log") in said
    assert "ZeroDivisionError: x / 0" in (tmp_path / "logs" / "cli.log").read_text()
