"""Thousands of rows with one statement, for what every host of a run costs.

SQLAlchemy looks at each parameter of each row; most of it is the same for all. Here that is worked out once for a
statement, and a row costs little more than the driver takes for it.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

Processor = Callable[[Any], Any]


class _Prepared:
    """A statement as one dialect's driver takes it."""

    def __init__(self, statement: sa.Insert | sa.Update, dialect: sa.Dialect, names: tuple[str, ...]) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=list(names))
        self.text = str(compiled)
        self._positions: tuple[str, ...] = tuple(compiled.positiontup or ())
        self._processors: list[tuple[str, Processor]] = [
            (name, processor)
            for name, bound in compiled.binds.items()
            if (processor := bound.type.dialect_impl(dialect).bind_processor(dialect)) is not None
        ]
        self._pick = itemgetter(*self._positions) if len(self._positions) > 1 else None

    def parameters(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The rows as the driver takes them: tuples by position, or mappings by name."""
        processed = [dict(row) for row in rows]
        for name, process in self._processors:
            times: dict[datetime, Any] = {}  # a run's rows have few of them, and each is spelt out slowly
            for row in processed:
                value = row[name]
                if not isinstance(value, datetime):
                    row[name] = process(value)
                elif (spelt := times.get(value)) is not None:
                    row[name] = spelt
                else:
                    row[name] = times[value] = process(value)
        if not self._positions:
            return processed
        if self._pick is None:
            return [(row[self._positions[0]],) for row in processed]
        return [self._pick(row) for row in processed]


@lru_cache(maxsize=64)
def _prepared(statement: sa.Insert | sa.Update, dialect: sa.Dialect, names: tuple[str, ...]) -> _Prepared:
    return _Prepared(statement, dialect, names)


def execute_many(connection: sa.Connection, statement: sa.Insert | sa.Update, rows: Sequence[Mapping[str, Any]]) -> int:
    """Execute `statement`, a constant, once for each of `rows`, which have the same names; how many rows it met.

    The statement's own bound values and columns' defaults are not filled in: each row has all that it needs. Raises
    what SQLAlchemy raises.
    """
    if not rows:
        return 0
    prepared = _prepared(statement, connection.dialect, tuple(rows[0]))
    done = connection.exec_driver_sql(prepared.text, prepared.parameters(rows))
    return done.rowcount
