"""Runs know the targets that they were given one by one; before, the first of them were written as a selector."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Older runs keep what they show."""
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("targets", sa.JSON, nullable=False, server_default="[]"))
    with op.batch_alter_table("runs") as runs:
        runs.alter_column("targets", server_default=None)
