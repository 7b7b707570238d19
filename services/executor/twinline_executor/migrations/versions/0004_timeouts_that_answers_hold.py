"""Timeouts of runs are such as an answer can hold; before, any was taken, and one too long spoiled every list."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """What is longer than ten thousand years becomes the longest that is taken now, 30 days."""
    op.execute("UPDATE runs SET timeout = 2592000 WHERE timeout > 315576000000")
