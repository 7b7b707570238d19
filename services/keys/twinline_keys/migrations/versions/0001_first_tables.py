"""First tables."""

import sqlalchemy as sa
from alembic import op

from twinline_kit.db import UtcDateTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "cloud_keys",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(128), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("create_time", UtcDateTime(), nullable=False),
        sa.Column("material_time", UtcDateTime(), nullable=True),
        sa.Column("request_id", sa.String(64), nullable=True),
        sa.UniqueConstraint("name", name="uq_cloud_keys_name"),
        sa.UniqueConstraint("request_id", name="uq_cloud_keys_request_id"),
    )
    op.create_table(
        "credentials",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("update_time", UtcDateTime(), nullable=False),
    )
    op.create_table(
        "people",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.UniqueConstraint("token_hash", name="uq_people_token_hash"),
    )
    op.create_table(
        "canaries",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in ("canaries", "people", "credentials", "cloud_keys"):
        op.drop_table(table)
