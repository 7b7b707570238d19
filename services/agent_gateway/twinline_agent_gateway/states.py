"""What state an agent is in. It follows from other facts; nothing stores it."""

from enum import StrEnum


class State(StrEnum):
    """Whether an agent can be spoken to."""

    NEVER_ENROLLED = "never enrolled"
    CONNECTED = "connected"
    LOST = "lost"
    REVOKED = "revoked"


def state_of(*, revoked: bool, enrolled: bool, connected: bool, replica_lives: bool) -> State:
    """The one state of an agent; `connected` counts only while the replica that said so lives."""
    if revoked:
        return State.REVOKED
    if connected and replica_lives:
        return State.CONNECTED
    return State.LOST if enrolled else State.NEVER_ENROLLED
