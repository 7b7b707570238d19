"""The first tables."""

import sqlalchemy as sa
from alembic import op

from twinline_kit.db import UtcDateTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "shelf", sa.Column("id", sa.String, primary_key=True), sa.Column("made", UtcDateTime, nullable=False)
    )
    op.create_table(
        "book",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("shelf", sa.String, sa.ForeignKey("shelf.id", ondelete="CASCADE"), nullable=False),
    )
