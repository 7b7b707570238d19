"""Machines at rest are found without reading those that ended."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """An index over what a round asks for."""
    op.create_index("ix_instances_at_rest", "instances", ["state", "due_time", "id"])
