"""Of a launch that went wrong it was not noted whether its cloud said that nothing is left: it is asked once more."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Let a look at each be due."""
    op.execute("UPDATE instances SET due_time = state_time WHERE state = 'error' AND terminate_time IS NULL")
