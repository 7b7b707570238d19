"""What follows from what is heard of a task."""

from datetime import UTC, datetime, timedelta

import pytest

from twinline_executor.active import ActiveRun, ActiveTask, End, host_time
from twinline_executor.rows import Run, Task
from twinline_executor.states import Line, State
from twinline_journal import Reason


def adopted(age: timedelta) -> ActiveTask:
    """A waiting task that another replica may have delivered, of a run that old and late."""
    at = datetime.now(UTC) - age
    run = Run("run-1", "r1", "", 0, "true", "", {}, None, 300.0, "me", at)
    row = Task("task-1", run.id, "t1", "web-1", Line.SSH, "", at)
    return ActiveTask(row, ActiveRun(run, deadline=0.0), adopted=True)


WITHDRAWN = End(Reason.CANCELED, None, 0, truncated=False, started=None, ended=None)


def test_a_journal_that_may_have_been_dropped_is_no_proof_that_nothing_ran() -> None:
    task = adopted(timedelta(days=8))
    task.absent()
    assert (task.state, task.reason) == (State.UNKNOWN, "JOURNAL_LOST")


def test_what_was_sent_is_late_only_once_its_host_promises_never_to_start_it() -> None:
    task = adopted(timedelta(days=1))
    task.absent()
    assert (task.state, task.settled) == (State.PENDING, False)
    task.end(WITHDRAWN)
    assert (task.state, task.reason) == (State.UNREACHABLE, "REACHED_TOO_LATE")


def test_what_is_late_is_delivered_no_more() -> None:
    assert not adopted(timedelta(days=1)).startable()


def test_output_that_comes_again_counts_once_and_a_gap_is_no_output() -> None:
    task = adopted(timedelta(minutes=1))
    assert task.take(0, b"abc")
    assert task.take(1, b"bcd")
    assert not task.take(9, b"x")
    assert (b"".join(task.chunks), task.received) == (b"abcd", 4)


def test_what_a_host_says_shows_no_secret() -> None:
    task = adopted(timedelta(minutes=1))
    task.run.share_secrets([b"hunter2"])
    task.out_of_reach("RUNNER_FAILED", "login: hunter2 \x1b[2J", unknown_after=60.0)
    assert task.message == "login: *******  [2J"


def left_of(output: bytes, reason: Reason = Reason.EXITED, signal: int = 0, *, truncated: bool = False) -> bytes:
    """What is kept of a task's output that ends like this, where `hunter2-hunter2` is a secret."""
    task, at = adopted(timedelta(minutes=1)), datetime.now(UTC)
    task.run.tasks[task.id] = task
    task.run.share_secrets([b"hunter2-hunter2"])
    task.take(0, output)
    if reason is Reason.PROCESS_GONE:
        task.interrupted(reason)
    else:
        task.end(End(reason, 1, signal, truncated=truncated, started=at, ended=at))
    assert task.received == len(output)
    return b"".join(task.chunks)


def test_the_beginning_of_a_secret_shows_only_where_the_script_itself_ended_its_output() -> None:
    cut = b"password is hunter2-hunter"
    assert left_of(cut) == cut
    masked = b"password is " + b"*" * 14
    assert left_of(cut, truncated=True) == masked
    assert left_of(cut, Reason.SIGNALED, 9) == masked
    assert left_of(cut, Reason.TIMED_OUT, 15) == masked
    assert left_of(cut, Reason.CANCELED) == masked
    assert left_of(cut, Reason.PROCESS_GONE) == masked


@pytest.mark.parametrize("reason", [Reason.EXITED, Reason.SIGNALED, Reason.TIMED_OUT, Reason.CANCELED])
def test_a_host_that_calls_an_end_the_reason_why_none_is_known_has_said_no_reason(reason: Reason) -> None:
    task = adopted(timedelta(minutes=1))
    task.interrupted(reason)
    assert (task.state, task.reason) == (State.UNKNOWN, "END_UNKNOWN")


def test_what_started_before_it_could_be_withdrawn_ends_as_it_ends() -> None:
    task = adopted(timedelta(days=1))
    task.absent()
    task.is_on_host(datetime.now(UTC), running=True)
    task.end(End(Reason.EXITED, 3, 0, truncated=False, started=datetime.now(UTC), ended=datetime.now(UTC)))
    assert (task.state, task.exit_status) == (State.FAILED, 3)


def test_what_another_replica_withdrew_was_late_and_not_canceled() -> None:
    task = adopted(timedelta(days=1))
    task.end(WITHDRAWN)
    assert (task.state, task.reason) == (State.UNREACHABLE, "REACHED_TOO_LATE")


def test_a_rejection_of_a_second_delivery_says_nothing_of_the_first() -> None:
    task = adopted(timedelta(minutes=1))
    task.run.deadline = float("inf")
    task.offers += 1
    task.rejected("too many wait")
    assert not task.settled
    task.end(WITHDRAWN)
    assert (task.state, task.reason, task.message) == (State.REFUSED, "AGENT_REJECTED", "too many wait")


def test_what_is_on_its_host_is_asked_about_when_another_delivery_of_it_is_rejected() -> None:
    task = adopted(timedelta(minutes=1))
    task.is_on_host(None, running=False)
    task.unclaimed = True
    task.rejected("too many wait")
    assert (task.state, task.settled, task.startable()) == (State.DELIVERED, False, False)
    task.absent()
    assert (task.state, task.reason) == (State.UNKNOWN, "JOURNAL_LOST")


def test_what_was_not_delivered_before_its_run_was_refused_is_refused_too() -> None:
    task = adopted(timedelta(minutes=1))
    task.run.refusal = ("CREDENTIAL_NOT_FOUND", "no credential P")
    task.absent()
    task.end(WITHDRAWN)
    assert (task.state, task.reason) == (State.REFUSED, "CREDENTIAL_NOT_FOUND")


@pytest.mark.parametrize("seconds", [None, 0.0, -62135596800.0, 253402300799.0, 1e300, float("inf"), float("nan")])
def test_a_clock_that_makes_no_sense_tells_no_time(seconds: float | None) -> None:
    assert host_time(seconds) is None


def test_a_clock_that_was_never_set_tells_its_time() -> None:
    assert host_time(1.5) == datetime(1970, 1, 1, 0, 0, 1, 500000, UTC)
