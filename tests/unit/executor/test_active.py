"""What follows from what is heard of a task."""

from datetime import UTC, datetime, timedelta

import pytest

from twinline_executor.active import ActiveRun, ActiveTask
from twinline_executor.rows import Run, Task
from twinline_executor.states import Line, State


def adopted(age: timedelta) -> ActiveTask:
    """A waiting task that another replica may have delivered, of a run that old and late."""
    at = datetime.now(UTC) - age
    run = Run("run-1", "r1", "", 0, "true", "", {}, None, 300.0, "me", at)
    row = Task("task-1", run.id, "t1", "web-1", Line.SSH, "", at)
    return ActiveTask(row, ActiveRun(run, deadline=0.0), adopted=True)


@pytest.mark.parametrize(
    ("days", "state", "reason"), [(1, State.UNREACHABLE, "REACHED_TOO_LATE"), (8, State.UNKNOWN, "JOURNAL_LOST")]
)
def test_a_journal_that_may_have_been_dropped_is_no_proof_that_nothing_ran(
    days: int, state: State, reason: str
) -> None:
    task = adopted(timedelta(days=days))
    task.absent()
    assert (task.state, task.reason) == (state, reason)


def test_what_was_not_delivered_before_its_run_was_refused_is_refused_too() -> None:
    task = adopted(timedelta(minutes=1))
    task.run.refusal = ("CREDENTIAL_NOT_FOUND", "no credential P")
    task.absent()
    assert (task.state, task.reason) == (State.REFUSED, "CREDENTIAL_NOT_FOUND")
