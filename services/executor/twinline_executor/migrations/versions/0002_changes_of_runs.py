"""Changes of tasks are numbered by their run's row."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Go on counting where each run's tasks are."""
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("changes", sa.BigInteger, nullable=False, server_default="0"))
    op.execute(
        "UPDATE runs SET changes = (SELECT coalesce(max(tasks.change), 0) FROM tasks WHERE tasks.run_id = runs.id)"
    )
    with op.batch_alter_table("runs") as runs:
        runs.alter_column("changes", server_default=None)
