"""A step has one state, where it had an outcome and, while it ran, the state of its task."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_LISTS = ("boot", "decommission")


def upgrade() -> None:
    """Word the steps of every machine's lists anew."""
    connection = op.get_bind()
    machines = sa.table("instances", sa.column("id"), *(sa.column(each, sa.JSON()) for each in _LISTS))
    for row in connection.execute(sa.select(machines)).all():
        worded = {each: [_worded(step) for step in getattr(row, each)] for each in _LISTS}
        connection.execute(sa.update(machines).where(machines.c.id == row.id).values(worded))


def _worded(step: dict[str, Any]) -> dict[str, Any]:
    outcome, task_state = step.pop("outcome"), step.pop("task_state", "")
    return {"reason": "", **step, "given_up": False, "state": task_state or outcome}
