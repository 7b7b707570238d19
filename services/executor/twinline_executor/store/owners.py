"""Which replica follows which run. No clock is compared: a replica is dead when its beat stands still."""

from collections.abc import Collection

import sqlalchemy as sa

from twinline_executor.models import replicas, runs, tasks
from twinline_executor.rows import Run, Task
from twinline_executor.store.runs import run_columns, task_columns, to_run, to_task

_FAR_BELOW = 1_000_000


class OwnerStore:
    """Replicas and the runs they own."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def beat(self, replica: str, known: int = 0) -> int:
        """Say that a replica lives; answer the number of this beat.

        It is higher than `known`, the last one that the replica heard of, unless it was taken for dead since; also when
        the answer to its first beat after that was lost.
        """
        grown = sa.update(replicas).where(replicas.c.id == replica).values(beat=replicas.c.beat + 1)
        with self._engine.begin() as connection:
            number = connection.execute(grown.returning(replicas.c.beat)).scalar_one_or_none()
            if number is None:
                number = known - _FAR_BELOW if known else 1
                connection.execute(sa.insert(replicas), {"id": replica, "beat": number})
            return number

    def beats(self) -> dict[str, int]:
        """The beat of every replica."""
        with self._engine.connect() as connection:
            return {row.id: row.beat for row in connection.execute(sa.select(replicas.c.id, replicas.c.beat))}

    def bury(self, replica: str, beat: int | None = None) -> None:
        """Remove a replica, unless it has beaten since."""
        statement = sa.delete(replicas).where(replicas.c.id == replica)
        if beat is not None:
            statement = statement.where(replicas.c.beat == beat)
        with self._engine.begin() as connection:
            connection.execute(statement)

    def claim(self, replica: str, known: int) -> None:
        """Take over the open runs of replicas that are no more; none when this one was taken for dead itself.

        `known` is its last beat that it heard of. What it followed until then may have been another's since, and must
        not be its own again before it has let go of it.
        """
        lives = sa.exists().where(replicas.c.id == replica, replicas.c.beat >= known)
        orphaned = sa.and_(runs.c.open, runs.c.owner.not_in(sa.select(replicas.c.id)), lives)
        # What another replica takes over at this moment is left to it.
        free = sa.select(runs.c.id).where(orphaned).with_for_update(skip_locked=True)
        taking = sa.update(runs).where(runs.c.id.in_(free), orphaned)
        with self._engine.begin() as connection:
            connection.execute(taking.values(owner=replica))

    def owned(self, replica: str) -> dict[str, bool]:
        """The open runs of a replica, and whether each is canceled."""
        query = sa.select(runs.c.id, runs.c.canceled).where(runs.c.open, runs.c.owner == replica)
        with self._engine.connect() as connection:
            return {row.id: row.canceled for row in connection.execute(query)}

    def open_run(self, run_id: str) -> tuple[Run, list[Task]]:
        """A run and those of its tasks that are not settled."""
        with self._engine.connect() as connection:
            run = connection.execute(sa.select(*run_columns).where(runs.c.id == run_id)).one()
            query = sa.select(*task_columns).where(tasks.c.run_id == run_id, sa.not_(tasks.c.settled))
            return to_run(run), [to_task(row) for row in connection.execute(query)]

    def canceled(self, replica: str, known: Collection[str]) -> list[str]:
        """The open runs of a replica that shall end and are not `known` to."""
        query = sa.select(runs.c.id).where(runs.c.open, runs.c.owner == replica, runs.c.canceled)
        with self._engine.connect() as connection:
            return [run_id for run_id in connection.execute(query).scalars() if run_id not in known]
