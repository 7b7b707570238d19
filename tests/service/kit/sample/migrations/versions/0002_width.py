"""Adds what SQLite can only do by making the table anew."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("shelf") as table:
        table.add_column(sa.Column("width", sa.Integer, nullable=False, server_default="1"))
        table.alter_column("made", nullable=True)
