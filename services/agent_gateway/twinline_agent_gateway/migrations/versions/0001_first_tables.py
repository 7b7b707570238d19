"""First tables."""

import sqlalchemy as sa
from alembic import op

from twinline_kit.db import UtcDateTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, and the one row of changes."""
    op.create_table(
        "agents",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("server", sa.String(255), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("token_expire_time", UtcDateTime(), nullable=False),
        sa.Column("key_digest", sa.String(64), nullable=True),
        sa.Column("enroll_time", UtcDateTime(), nullable=True),
        sa.Column("revoked", sa.Boolean(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("replica", sa.String(64), nullable=False),
        sa.Column("connected", sa.Boolean(), nullable=False),
        sa.Column("connect_time", UtcDateTime(), nullable=True),
        sa.Column("last_seen_time", UtcDateTime(), nullable=True),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("change", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("request_id", name="uq_agents_request_id"),
        sa.UniqueConstraint("token_hash", name="uq_agents_token_hash"),
    )
    op.create_index("ix_agents_change", "agents", ["change"])
    op.create_table(
        "replicas",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("address", sa.String(255), nullable=False),
        sa.Column("expire_time", UtcDateTime(), nullable=False),
    )
    changes = op.create_table(
        "changes",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("latest", sa.BigInteger(), nullable=False),
    )
    op.bulk_insert(changes, [{"id": 1, "latest": 0}])


def downgrade() -> None:
    """Drop the tables."""
    for table in ("changes", "replicas", "agents"):
        op.drop_table(table)
