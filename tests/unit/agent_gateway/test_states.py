"""What state an agent is in."""

import pytest

from twinline_agent_gateway.states import State, state_of

YES, NO = True, False


@pytest.mark.parametrize(
    ("revoked", "enrolled", "connected", "replica_lives", "state"),
    [
        (YES, YES, YES, YES, State.REVOKED),
        (YES, NO, NO, NO, State.REVOKED),
        (NO, NO, NO, NO, State.NEVER_ENROLLED),
        (NO, NO, YES, NO, State.NEVER_ENROLLED),
        (NO, YES, YES, YES, State.CONNECTED),
        (NO, YES, YES, NO, State.LOST),
        (NO, YES, NO, YES, State.LOST),
    ],
)
def test_an_agent_has_one_state(
    revoked: bool, enrolled: bool, connected: bool, replica_lives: bool, state: State
) -> None:
    assert state_of(revoked=revoked, enrolled=enrolled, connected=connected, replica_lives=replica_lives) is state
