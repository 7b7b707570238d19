"""Runs that a replica finds as its own and did not start: one before it did, and may have sent their tasks."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from twinline_executor import rows
from twinline_executor.states import Line
from twinline_executor.store.runs import RunStore
from twinline_kit import db


def leave_run(
    database_url: str,
    *,
    owner: str,
    line: Line = Line.SSH,
    inputs: Mapping[str, str] | None = None,
    age: timedelta = timedelta(0),
    number: int = 1,
) -> None:
    """Store run-1, of task-1 for web-1, as if its owner had begun it that long ago. It has 300 s to reach its host.

    Or another one, of that `number`.
    """
    at = datetime.now(UTC) - age
    run = rows.Run(
        f"run-{number}", f"r{number}", "", 0, "true", "name:web-1", dict(inputs or {}), None, 300.0, "me", at,
        owner=owner,
    )  # fmt: skip
    agent_id = "agent-1" if line is Line.AGENT else ""
    engine = db.open(database_url)
    RunStore(engine).create(run, [rows.Task(f"task-{number}", run.id, "target-web-1", "web-1", line, agent_id, at)])
    engine.dispose()
