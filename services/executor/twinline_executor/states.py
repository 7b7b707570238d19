"""The life of a task, as data; the same for both lines.

A task is `PENDING` until its host's journal has it. From then on the journal is the truth and the events here only
repeat what it says. `UNKNOWN` is not an end: a task that was lost turns into what the journal says once the host is
back. An event that settles a task ends the following of it; whatever else happens, its row is never written again.
"""

from collections.abc import Mapping
from enum import IntEnum, StrEnum

from twinline_executor.errors import IllegalTransition


class State(IntEnum):
    """Where a task stands; the numbers are the proto's."""

    PENDING = 1
    DELIVERED = 2
    RUNNING = 3
    SUCCEEDED = 4
    FAILED = 5
    TIMED_OUT = 6
    CANCELED = 7
    UNKNOWN = 8
    UNREACHABLE = 9
    REFUSED = 10


class Event(StrEnum):
    """What happens to a task."""

    DELIVER = "deliver"  # the journal has it
    START = "start"
    SUCCEED = "succeed"
    FAIL = "fail"
    TIME_OUT = "time out"
    CANCEL = "cancel"
    LOSE = "lose"  # started or perhaps started, and the host cannot be asked
    INTERRUPT = "interrupt"  # the journal says that it will never know the end
    GIVE_UP = "give up"  # never started, and not reached in time
    REFUSE = "refuse"  # never started, and waiting would not cure it


class RunState(IntEnum):
    """Where a run stands; the numbers are the proto's."""

    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3
    CANCELED = 4


class Line(IntEnum):
    """Which line carries a task; the numbers are the proto's."""

    SSH = 1
    AGENT = 2

    @classmethod
    def to(cls, generation: int) -> "Line":
        """Which line reaches a host of this generation."""
        return cls.AGENT if generation == 5 else cls.SSH


_ENDS = {
    Event.SUCCEED: State.SUCCEEDED,
    Event.FAIL: State.FAILED,
    Event.TIME_OUT: State.TIMED_OUT,
    Event.CANCEL: State.CANCELED,
    Event.LOSE: State.UNKNOWN,
    Event.INTERRUPT: State.UNKNOWN,
}
_NEVER_STARTED = {Event.GIVE_UP: State.UNREACHABLE, Event.REFUSE: State.REFUSED}
_ON_HOST = {Event.DELIVER: State.DELIVERED, Event.START: State.RUNNING}

TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.PENDING: _ON_HOST | _ENDS | _NEVER_STARTED,
    State.DELIVERED: _ON_HOST | _ENDS | _NEVER_STARTED,
    State.RUNNING: {Event.DELIVER: State.RUNNING, Event.START: State.RUNNING} | _ENDS,
    State.UNKNOWN: _ON_HOST | _ENDS | _NEVER_STARTED,
    State.SUCCEEDED: {},
    State.FAILED: {},
    State.TIMED_OUT: {},
    State.CANCELED: {},
    State.UNREACHABLE: {},
    State.REFUSED: {},
}

SETTLING = frozenset(
    {Event.SUCCEED, Event.FAIL, Event.TIME_OUT, Event.CANCEL, Event.INTERRUPT, Event.GIVE_UP, Event.REFUSE}
)
"""Events after which nothing about the task can change any more."""

ENDED = frozenset(
    {
        State.SUCCEEDED,
        State.FAILED,
        State.TIMED_OUT,
        State.CANCELED,
        State.UNKNOWN,
        State.UNREACHABLE,
        State.REFUSED,
    }
)
"""States in which a run does not wait for the task; UNKNOWN is one of them."""


def after(state: State, event: Event) -> State:
    """The state that follows, or IllegalTransition."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransition(
            f"cannot {event} a task that is {state.name}", state=state.name, event=event.value
        ) from None


def of_run(counts: Mapping[State, int], *, canceled: bool) -> RunState:
    """The state of a run whose tasks stand as counted."""
    if any(count for state, count in counts.items() if state not in ENDED):
        return RunState.RUNNING
    if canceled and counts.get(State.CANCELED):
        return RunState.CANCELED
    if {state for state, count in counts.items() if count} <= {State.SUCCEEDED}:
        return RunState.SUCCEEDED
    return RunState.FAILED
