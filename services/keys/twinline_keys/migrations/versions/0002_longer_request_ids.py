"""Requests may have ids of 128 characters, as at every service."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make room."""
    with op.batch_alter_table("cloud_keys") as keys:
        keys.alter_column("request_id", type_=sa.String(128), existing_type=sa.String(64), existing_nullable=True)
