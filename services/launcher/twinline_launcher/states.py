"""The life of a server's machine, as data. Nothing else decides what follows what.

A server that was never launched is INACTIVE. LAUNCH makes a machine, PENDING until the cloud runs it. Names in -ING are
moved by the reconciler; all others rest until a person, the cloud or a limit does something.

BOOTING runs the boot list on the machine. Its first failure strands the machine: it runs, costs money, and waits for a
person, who resumes from the failed step, declares it operational, or terminates it. TERMINATE of a machine that never
finished its boot goes straight to SHUTTING_DOWN, because a decommission list undoes what a completed boot did. An
OPERATIONAL one is DECOMMISSIONING first, on both generations. A decommission that fails or overruns strands as well;
that ends by itself after a limit, or by a second TERMINATE.

ERROR is a launch that the cloud refused, or did not answer in time. It may have left a machine all the same: the cloud
is told to end it, and asked until it says that nothing is left. A person frees the server by TERMINATE.

Outside the suite a machine can be ended behind our back: VANISH leads from wherever it was to TERMINATED. SHUTTING_DOWN
has no limit, on purpose: the machine costs money until the cloud says that it is gone, so we never stop asking.

What is not in here: the cloud's own view of the machine and the agent's connection. They are other fields, not states.
"""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum

from twinline_launcher.errors import IllegalTransition


class State(StrEnum):
    """Where a server's machine stands."""

    INACTIVE = "inactive"
    PENDING = "pending"
    BOOTING = "booting"
    OPERATIONAL = "operational"
    STRANDED_IN_BOOTING = "stranded_in_booting"
    DECOMMISSIONING = "decommissioning"
    STRANDED_IN_DECOMMISSIONING = "stranded_in_decommissioning"
    SHUTTING_DOWN = "shutting_down"
    TERMINATED = "terminated"
    ERROR = "error"


class Event(StrEnum):
    """What happens to a machine."""

    LAUNCH = "launch"  # a person
    RUN = "run"  # the cloud says that it runs
    REFUSE = "refuse"  # the cloud will not make it
    FINISH_BOOT = "finish_boot"
    STRAND = "strand"  # a step failed or could not be started
    RESUME = "resume"  # a person
    FORCE_OPERATIONAL = "force_operational"  # a person
    TERMINATE = "terminate"  # a person
    FINISH_DECOMMISSION = "finish_decommission"
    EXPIRE = "expire"  # the limit of the state is over
    END = "end"  # the cloud says that it is gone, as it was told
    VANISH = "vanish"  # the cloud says that it is gone, and we did not tell it


TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.INACTIVE: {
        Event.LAUNCH: State.PENDING,
    },
    State.PENDING: {
        Event.RUN: State.BOOTING,
        Event.REFUSE: State.ERROR,
        Event.EXPIRE: State.ERROR,
        Event.TERMINATE: State.SHUTTING_DOWN,
        Event.VANISH: State.TERMINATED,
    },
    State.BOOTING: {
        Event.FINISH_BOOT: State.OPERATIONAL,
        Event.STRAND: State.STRANDED_IN_BOOTING,
        Event.EXPIRE: State.STRANDED_IN_BOOTING,
        Event.TERMINATE: State.SHUTTING_DOWN,
        Event.VANISH: State.TERMINATED,
    },
    State.OPERATIONAL: {
        Event.TERMINATE: State.DECOMMISSIONING,
        Event.VANISH: State.TERMINATED,
    },
    State.STRANDED_IN_BOOTING: {
        Event.RESUME: State.BOOTING,
        Event.FORCE_OPERATIONAL: State.OPERATIONAL,
        Event.TERMINATE: State.SHUTTING_DOWN,
        Event.VANISH: State.TERMINATED,
    },
    State.DECOMMISSIONING: {
        Event.FINISH_DECOMMISSION: State.SHUTTING_DOWN,
        Event.STRAND: State.STRANDED_IN_DECOMMISSIONING,
        Event.EXPIRE: State.STRANDED_IN_DECOMMISSIONING,
        Event.VANISH: State.TERMINATED,
    },
    State.STRANDED_IN_DECOMMISSIONING: {
        Event.EXPIRE: State.SHUTTING_DOWN,
        Event.TERMINATE: State.SHUTTING_DOWN,
        Event.VANISH: State.TERMINATED,
    },
    State.SHUTTING_DOWN: {
        Event.END: State.TERMINATED,
    },
    State.TERMINATED: {
        Event.LAUNCH: State.PENDING,
    },
    State.ERROR: {
        # Something may be left of a launch that went wrong, so the cloud is told before the server is free again.
        Event.TERMINATE: State.SHUTTING_DOWN,
    },
}

ASKED = frozenset({Event.LAUNCH, Event.RESUME, Event.FORCE_OPERATIONAL, Event.TERMINATE})
"""What a person can ask for."""

LIMITS: Mapping[State, timedelta] = {
    State.PENDING: timedelta(minutes=10),
    State.BOOTING: timedelta(hours=4),
    State.DECOMMISSIONING: timedelta(seconds=180),  # 100 s on v4, see the settings
    State.STRANDED_IN_DECOMMISSIONING: timedelta(minutes=50),
}
"""After so long in a state EXPIRE happens to it. What an operator may set has its default here."""

MOVING = frozenset({State.PENDING, State.BOOTING, State.DECOMMISSIONING, State.SHUTTING_DOWN})
"""It changes by itself: whoever wants something else waits. All other states rest."""

WITH_MACHINE = frozenset(
    {
        State.PENDING,
        State.BOOTING,
        State.OPERATIONAL,
        State.STRANDED_IN_BOOTING,
        State.DECOMMISSIONING,
        State.STRANDED_IN_DECOMMISSIONING,
        State.SHUTTING_DOWN,
        State.ERROR,
    }
)
"""A machine was asked of the cloud; it is there until that says that it is gone, which its `terminate_time` tells."""

STRANDED = frozenset({State.STRANDED_IN_BOOTING, State.STRANDED_IN_DECOMMISSIONING})
"""The machine runs, costs money, and does nothing for it."""

ENDED = frozenset({State.DECOMMISSIONING, State.SHUTTING_DOWN, State.TERMINATED})
"""What TERMINATE asks for is under way, or done: it changes nothing."""

REACHABLE = STRANDED | {State.BOOTING, State.OPERATIONAL, State.DECOMMISSIONING}
"""The machine runs, and scripts can be run on it."""


def after(state: State, event: Event, *, server: str) -> State:
    """The state of `server`'s machine that follows, or IllegalTransition with what a person can ask for instead."""
    followers = TRANSITIONS[state]
    if event in followers:
        return followers[event]
    allowed = ", ".join(_said(each) for each in followers if each in ASKED)
    text = (
        f"cannot {_said(event)} {server}: it is {state.replace('_', ' ')}; "
        f"possible now: {allowed or 'nothing, it moves on by itself'}"
    )
    raise IllegalTransition(text, server=server, state=state.name, event=event.name, allowed=allowed)


def _said(event: Event) -> str:
    """An event as the command line calls it."""
    return event.replace("_", "-")
