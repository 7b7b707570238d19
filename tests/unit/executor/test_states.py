"""The table of a task's life."""

import pytest

from twinline.executor.v1 import runs_pb2
from twinline_executor import states
from twinline_executor.errors import IllegalTransition
from twinline_executor.states import ENDED, SETTLING, TRANSITIONS, Event, Line, RunState, State

FINAL = {State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.CANCELED, State.UNREACHABLE, State.REFUSED}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(State, runs_pb2.Task.State), (RunState, runs_pb2.Run.State), (Line, runs_pb2.Task.Line)],
)
def test_the_numbers_are_the_proto_s(ours: type[State], theirs: object) -> None:
    named = {name.split("_", 1)[1]: number for name, number in theirs.items()}  # type: ignore[attr-defined]
    assert {"UNSPECIFIED": 0} | {state.name: int(state) for state in ours} == named


def test_every_state_has_a_row_and_the_final_ones_are_empty() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {state for state, row in TRANSITIONS.items() if not row} == FINAL
    assert FINAL | {State.UNKNOWN} == ENDED


@pytest.mark.parametrize("state", sorted(set(State) - FINAL))
def test_every_other_state_can_end_and_be_unknown(state: State) -> None:
    assert states.after(state, Event.SUCCEED) is State.SUCCEEDED
    assert states.after(state, Event.LOSE) is State.UNKNOWN


@pytest.mark.parametrize("event", [Event.GIVE_UP, Event.REFUSE])
def test_what_ran_is_never_said_not_to_have_started(event: Event) -> None:
    with pytest.raises(IllegalTransition, match=f"cannot {event}"):
        states.after(State.RUNNING, event)


@pytest.mark.parametrize("state", sorted(FINAL))
@pytest.mark.parametrize("event", list(Event))
def test_nothing_follows_a_final_state(state: State, event: Event) -> None:
    with pytest.raises(IllegalTransition):
        states.after(state, event)


def test_settling_events_lead_to_ends_only() -> None:
    for row in TRANSITIONS.values():
        assert {after for event, after in row.items() if event in SETTLING} <= ENDED


@pytest.mark.parametrize(
    ("counts", "canceled", "expected"),
    [
        ({State.SUCCEEDED: 2}, False, RunState.SUCCEEDED),
        ({State.SUCCEEDED: 2, State.RUNNING: 1}, True, RunState.RUNNING),
        ({State.SUCCEEDED: 2, State.FAILED: 0}, True, RunState.SUCCEEDED),
        ({State.SUCCEEDED: 2, State.CANCELED: 1}, True, RunState.CANCELED),
        ({State.SUCCEEDED: 2, State.CANCELED: 1}, False, RunState.FAILED),
        ({State.SUCCEEDED: 2, State.UNKNOWN: 1}, False, RunState.FAILED),
    ],
)
def test_a_run_is_what_its_tasks_are(counts: dict[State, int], canceled: bool, expected: RunState) -> None:
    assert states.of_run(counts, canceled=canceled) is expected
