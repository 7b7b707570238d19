"""Runs and their tasks on disk: made at once, read in pages."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from twinline_executor.errors import RunNotFound, TaskNotFound
from twinline_executor.models import runs, tasks
from twinline_executor.rows import Counts, Run, Task
from twinline_executor.states import Line, RunState, State
from twinline_kit.bulk import execute_many

Row = sa.Row[*tuple[Any, ...]]

run_columns = [runs.c[field.name] for field in fields(Run)]
task_columns = [tasks.c[name] for name in Task._fields]

# What each look of each watcher reads is worked out once.
_RUN = sa.select(*run_columns).where(runs.c.id == sa.bindparam("run_id"))
_COUNTS = (
    sa.select(tasks.c.run_id, tasks.c.state, sa.func.count())
    .where(tasks.c.run_id.in_(sa.bindparam("run_ids", expanding=True)))
    .group_by(tasks.c.run_id, tasks.c.state)
)
_ZERO: sa.ColumnElement[int] = sa.literal_column("0")
_EMPTY: sa.ColumnElement[str] = sa.literal_column("''")
_INSERT_TASKS = sa.insert(tasks).values(
    settled=sa.false(), reason=_EMPTY, message=_EMPTY, signal=_ZERO, output_size=_ZERO, output_truncated=sa.false(),
    output_sha256=_EMPTY,
)  # fmt: skip


class RunStore:
    """Runs, and tasks as those who watch see them."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def create(self, run: Run, planned: Sequence[Task]) -> Run:
        """Store a run and all its tasks, or return the run that its request_id made before."""
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(runs), asdict(run) | {"changes": len(planned), "credentials": {}})
                execute_many(connection, _INSERT_TASKS, _columns(planned))
        except IntegrityError:
            if first := self.by_request(run.request_id):
                return first
            raise
        return run

    def by_request(self, request_id: str) -> Run | None:
        """The run that this request made, if any."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(*run_columns).where(runs.c.request_id == request_id)).first()
        return to_run(row) if row is not None else None

    def get(self, run_id: str) -> Run:
        """One run."""
        with self._engine.connect() as connection:
            return _run(connection, run_id)

    def standing(self, run_id: str) -> tuple[Run, Counts]:
        """One run, and how many of its tasks are in each state, at that moment or later."""
        with self._engine.connect() as connection:
            return _run(connection, run_id), _counts(connection, [run_id])[run_id]

    def newest(self, *, before: tuple[datetime, str] | None, limit: int) -> list[Run]:
        """Runs by time, newest first."""
        query = sa.select(*run_columns).order_by(runs.c.create_time.desc(), runs.c.id.desc()).limit(limit)
        if before is not None:
            at, run_id = before
            older = sa.and_(runs.c.create_time == at, runs.c.id < run_id)
            query = query.where(sa.or_(runs.c.create_time < at, older))
        with self._engine.connect() as connection:
            return [to_run(row) for row in connection.execute(query)]

    def counts(self, run_ids: Sequence[str]) -> dict[str, Counts]:
        """How many tasks of each run are in each state."""
        with self._engine.connect() as connection:
            return _counts(connection, run_ids)

    def task(self, task_id: str) -> Task:
        """One task."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(*task_columns).where(tasks.c.id == task_id)).first()
        if row is None:
            raise TaskNotFound(f"no task {task_id}; `twinline runs show RUN` lists them", task=task_id)
        return to_task(row)

    def tasks_by_name(self, run_id: str, *, after: tuple[str, str], limit: int) -> list[Task]:
        """A page of a run's tasks, by the target's name."""
        name, task_id = after
        later = sa.or_(tasks.c.target_name > name, sa.and_(tasks.c.target_name == name, tasks.c.id > task_id))
        query = sa.select(*task_columns).where(tasks.c.run_id == run_id, later)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(tasks.c.target_name, tasks.c.id).limit(limit))
            return [to_task(row) for row in rows]

    def tasks_changed(self, run_id: str, *, after: tuple[int, str], limit: int) -> list[Task]:
        """A page of a run's tasks, in the order of their last change."""
        change, task_id = after
        later = sa.or_(tasks.c.change > change, sa.and_(tasks.c.change == change, tasks.c.id > task_id))
        query = sa.select(*task_columns).where(tasks.c.run_id == run_id, tasks.c.change >= change, later)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(tasks.c.change, tasks.c.id).limit(limit))
            return [to_task(row) for row in rows]

    def tasks_by_id(self, task_ids: Sequence[str]) -> list[Task]:
        """Some tasks, in any order."""
        with self._engine.connect() as connection:
            return [
                to_task(row) for row in connection.execute(sa.select(*task_columns).where(tasks.c.id.in_(task_ids)))
            ]

    def cancel(self, run_id: str) -> None:
        """Note that a run shall end; its owner sees to it."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(runs).where(runs.c.id == run_id, runs.c.open).values(canceled=True))

    def first_opened(self, run_id: str, versions: Mapping[str, str]) -> dict[str, str]:
        """Note which versions of credentials a run opens, unless it opened them before; answer the first of each."""
        this = runs.c.id == run_id
        with self._engine.begin() as connection:
            known = connection.execute(sa.select(runs.c.credentials).where(this).with_for_update()).scalar_one()
            first = {**versions, **known}
            if first != known:
                connection.execute(sa.update(runs).where(this).values(credentials=first))
            return first


def _run(connection: sa.Connection, run_id: str) -> Run:
    row = connection.execute(_RUN, {"run_id": run_id}).first()
    if row is None:
        raise RunNotFound(f"no run {run_id}; `twinline runs list` shows them", run=run_id)
    return to_run(row)


def _counts(connection: sa.Connection, run_ids: Sequence[str]) -> dict[str, Counts]:
    counted: dict[str, Counts] = {run_id: {} for run_id in run_ids}
    for run_id, state, count in connection.execute(_COUNTS, {"run_ids": list(run_ids)}):
        counted[run_id][State(state)] = count
    return counted


def _columns(planned: Sequence[Task]) -> dict[str, Sequence[Any]]:
    """What is new tasks' own; all else of them is the same."""
    return {
        "id": [task.id for task in planned], "run_id": [task.run_id for task in planned],
        "target_id": [task.target_id for task in planned], "target_name": [task.target_name for task in planned],
        "line": [int(task.line) for task in planned], "agent_id": [task.agent_id for task in planned],
        "create_time": [task.create_time for task in planned], "state": [int(task.state) for task in planned],
        "change": range(1, len(planned) + 1),
    }  # fmt: skip


def to_run(row: Row) -> Run:
    """A row of `run_columns`."""
    return Run(**dict(row._mapping) | {"state": RunState(row.state), "targets": tuple(row.targets)})


def to_task(row: Row) -> Task:
    """A row of `task_columns`."""
    task_id, run_id, target_id, target_name, line, agent_id, create_time, state, *rest = row
    return Task(task_id, run_id, target_id, target_name, Line(line), agent_id, create_time, State(state), *rest)
