"""Runs know how much output hosts were told to keep: whoever follows them later may be set otherwise."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Older runs stay without: they are followed by what their replica is set to, as before."""
    op.add_column("runs", sa.Column("max_output", sa.BigInteger))
