"""The one writer of what becomes of tasks."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DataError, IntegrityError

from twinline_executor import states
from twinline_executor.models import output, runs, tasks
from twinline_executor.rows import Result
from twinline_executor.states import RunState, State
from twinline_executor.store.output import rows
from twinline_kit.bulk import execute_many

log = logging.getLogger(__name__)

_GUARDED_UPDATE = (
    sa.update(tasks)
    .where(
        tasks.c.id == sa.bindparam("key"),
        tasks.c.output_size == sa.bindparam("expected_size"),
        sa.not_(tasks.c.settled),
    )
    .values(
        state=sa.bindparam("state"), settled=sa.bindparam("settled"), reason=sa.bindparam("reason"),
        message=sa.bindparam("message"), exit_status=sa.bindparam("exit_status"), signal=sa.bindparam("signal"),
        output_size=sa.bindparam("output_size"), output_truncated=sa.bindparam("output_truncated"),
        output_sha256=sa.bindparam("output_sha256"), start_time=sa.bindparam("start_time"),
        end_time=sa.bindparam("end_time"), change=sa.bindparam("change"),
    )
)  # fmt: skip

_INSERT_OUTPUT = sa.insert(output)

_OWN = sa.select(runs.c.id).where(
    runs.c.id.in_(sa.bindparam("run_ids", expanding=True)), runs.c.owner == sa.bindparam("replica")
)
_COUNT_UP = (
    sa.update(runs)
    .where(runs.c.id.in_(_OWN.order_by(runs.c.id).with_for_update()))
    .values(changes=runs.c.changes + 1)
    .returning(runs.c.id, runs.c.changes)
)

_THIS_RUN = runs.c.id == sa.bindparam("this_run")
_RUN = sa.select(runs.c.state, runs.c.canceled, runs.c.end_time).where(_THIS_RUN).with_for_update()
_COUNT_TASKS = (
    sa.select(tasks.c.state, tasks.c.settled, sa.func.count())
    .where(tasks.c.run_id == sa.bindparam("this_run"))
    .group_by(tasks.c.state, tasks.c.settled)
)
_CLOSE = sa.update(runs).where(_THIS_RUN)


class ResultStore:
    """Writes results in batches. Each row is guarded: it must be as its writer left it, and not settled.

    Only the runs that `replica` owns are written. Who slept, and does not know yet that another took its runs over,
    has nothing true to say about them: its clock went on, and what came of its tasks was told to the other.
    """

    def __init__(self, engine: sa.Engine, replica: str) -> None:
        self._engine = engine
        self._replica = replica

    def record(self, results: Sequence[Result], *, follows: Callable[[str], bool] = lambda run_id: True) -> set[str]:
        """Write a batch in one transaction; answer the ids that are somebody else's by now, left as they are.

        `follows` is asked of a run once nobody can take it over any more: whether whoever made the results is the one
        who follows it still. It may have been another's since, and be this replica's again.
        """
        results = sorted(results, key=lambda result: result.task_id)  # as two writers could wait for each other
        try:
            with self._engine.begin() as connection:
                changes, ours = self._ours(connection, results, follows)
                if self._recorded_at_once(connection, ours, changes):
                    return {result.task_id for result in results if result.run_id not in changes}
                connection.rollback()
        except (DataError, IntegrityError):
            pass  # one of them cannot be stored: the others shall not suffer
        with self._engine.begin() as connection:
            changes, ours = self._ours(connection, results, follows)
            recorded = {result.task_id for result in ours if self._recorded_alone(connection, result, changes)}
            return {result.task_id for result in results} - recorded

    def _ours(
        self, connection: sa.Connection, results: Sequence[Result], follows: Callable[[str], bool]
    ) -> tuple[dict[str, int], list[Result]]:
        """The results that are ours to write, and by run the number of the change that this transaction makes."""
        owned = _changes(connection, results, self._replica)
        changes = {run_id: number for run_id, number in owned.items() if follows(run_id)}
        return changes, [result for result in results if result.run_id in changes]

    def _recorded_at_once(
        self, connection: sa.Connection, results: Sequence[Result], changes: Mapping[str, int]
    ) -> bool:
        if results:
            if execute_many(connection, _GUARDED_UPDATE, _columns(results, changes)) != len(results):
                return False
            self._append(connection, results)
        return True

    def _recorded_alone(self, connection: sa.Connection, result: Result, changes: Mapping[str, int]) -> bool:
        try:
            with connection.begin_nested():
                return self._recorded_at_once(connection, [result], changes)
        except (DataError, IntegrityError):
            log.exception("a result cannot be stored", extra={"task": result.task_id})
            return False

    def _append(self, connection: sa.Connection, results: Sequence[Result]) -> None:
        pieces = [
            row for result in results if result.data for row in rows(result.task_id, result.expected_size, result.data)
        ]
        if pieces:
            task_ids, offsets, data = zip(*pieces, strict=True)
            execute_many(connection, _INSERT_OUTPUT, {"task_id": task_ids, "offset": offsets, "data": data})

    def close_run(self, run_id: str, *, at: datetime) -> RunState:
        """Bring a run's own state up to its tasks'; answer it.

        By whom does not matter: it says what is stored of the tasks while nobody can write them, and nothing else.
        """
        with self._engine.begin() as connection:
            run = connection.execute(_RUN, {"this_run": run_id}).one()
            counted = connection.execute(_COUNT_TASKS, {"this_run": run_id}).all()
            counts: dict[State, int] = {}
            for state, _, count in counted:
                counts[State(state)] = counts.get(State(state), 0) + count
            state = states.of_run(counts, canceled=run.canceled)
            ended = None if state is RunState.RUNNING else run.end_time or at
            is_open = not all(settled for _, settled, _ in counted)
            values = {"state": int(state), "end_time": ended, "open": is_open}
            connection.execute(_CLOSE, {"this_run": run_id, **values})
            return state


def _changes(connection: sa.Connection, results: Sequence[Result], replica: str) -> dict[str, int]:
    """By run that the replica owns, the number of the change that this transaction makes.

    Until it ends nobody else gets one, and nobody takes the run over: who has seen a number has seen all that was
    written under lower ones.
    """
    known = {"run_ids": {result.run_id for result in results}, "replica": replica}
    return {row.id: row.changes for row in connection.execute(_COUNT_UP, known)}


def _columns(results: Sequence[Result], changes: Mapping[str, int]) -> dict[str, Sequence[Any]]:
    return {
        "key": [each.task_id for each in results], "expected_size": [each.expected_size for each in results],
        "state": [int(each.state) for each in results], "settled": [each.settled for each in results],
        "reason": [each.reason for each in results], "message": [each.message for each in results],
        "exit_status": [each.exit_status for each in results], "signal": [each.signal for each in results],
        "output_size": [each.output_size for each in results],
        "output_truncated": [each.output_truncated for each in results],
        "output_sha256": [each.output_sha256 for each in results],
        "start_time": [each.start_time for each in results], "end_time": [each.end_time for each in results],
        "change": [changes[each.run_id] for each in results],
    }  # fmt: skip
