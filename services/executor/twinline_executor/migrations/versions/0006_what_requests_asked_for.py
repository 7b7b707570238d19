"""Runs know what was asked for, so that a request_id that comes again is not answered with something else."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Of older runs it is not known: their request_id answers them, whatever comes with it."""
    op.add_column("runs", sa.Column("asked", sa.String(64)))
