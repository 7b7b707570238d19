"""Runs number the changes of their tasks, and know which versions of credentials they opened first."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Go on counting where each run's tasks are."""
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("changes", sa.BigInteger, nullable=False, server_default="0"))
        runs.add_column(sa.Column("credentials", sa.JSON, nullable=False, server_default="{}"))
    op.execute(
        "UPDATE runs SET changes = (SELECT coalesce(max(tasks.change), 0) FROM tasks WHERE tasks.run_id = runs.id)"
    )
    with op.batch_alter_table("runs") as runs:
        runs.alter_column("changes", server_default=None)
        runs.alter_column("credentials", server_default=None)
