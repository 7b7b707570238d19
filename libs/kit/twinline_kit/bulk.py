"""Thousands of rows at once, for what every host of a run costs.

SQLAlchemy looks at each parameter of each row; here that is worked out once for a statement. SQLite's driver lets go
of the interpreter at each execution, which then is somebody else's for as long as it likes; here many rows are one.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

Processor = Callable[[Any], Any]
Statement = sa.Insert | sa.Update

_SIZES = tuple(2**power for power in range(7, -1, -1))
"""Rows of one statement for SQLite: few sizes, as each is a statement to prepare. 32,766 parameters are the most."""


def execute_many(connection: sa.Connection, statement: Statement, rows: Sequence[dict[str, Any]]) -> int:
    """Execute `statement`, a constant, for each of `rows`, which have the same names; how many rows it met.

    Each of `rows` has all that the statement needs, as columns' defaults are not filled in; they are used up. An update
    names its row by bound values, and no two of `rows` name the same one. Raises what SQLAlchemy raises.
    """
    if not rows:
        return 0
    prepared = _prepared(statement, connection.dialect, tuple(rows[0]))
    return sum(connection.exec_driver_sql(text, parameters).rowcount for text, parameters in prepared.batches(rows))


class _Prepared:
    """A statement as one dialect's driver takes it."""

    def __init__(self, statement: Statement, dialect: sa.Dialect, names: tuple[str, ...]) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=list(names))
        self._text = str(compiled)
        self._positions: tuple[str, ...] = tuple(compiled.positiontup or ())
        self._pick = itemgetter(*self._positions) if len(self._positions) > 1 else None
        self._processors: list[tuple[str, Processor]] = [
            (name, processor)
            for name, bound in compiled.binds.items()
            if not isinstance(bound.type, sa.Boolean | sa.LargeBinary)  # which drivers take as they are
            and (processor := bound.type.dialect_impl(dialect).bind_processor(dialect)) is not None
        ]
        self._many: dict[int, str] = {}
        if dialect.name == "sqlite":
            make = _insert_many if isinstance(statement, sa.Insert) else _update_many
            self._many = {size: make(self._text, len(self._positions), size) for size in _SIZES}

    def batches(self, rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
        """Statements and their parameters."""
        parameters = self._parameters(rows)
        if not self._many:
            yield self._text, parameters
            return
        start = 0
        for size, text in self._many.items():
            while len(parameters) - start >= size:
                yield text, tuple(chain.from_iterable(parameters[start : start + size]))
                start += size

    def _parameters(self, rows: Sequence[dict[str, Any]]) -> Sequence[Any]:
        """The rows as the driver takes them: tuples by position, or mappings by name."""
        for name, process in self._processors:
            times: dict[datetime, Any] = {}  # a run's rows have few of them, and each is spelt out slowly
            for row in rows:
                value = row[name]
                if not isinstance(value, datetime):
                    row[name] = process(value)
                elif (spelt := times.get(value)) is not None:
                    row[name] = spelt
                else:
                    row[name] = times[value] = process(value)
        if not self._positions:
            return rows
        if self._pick is None:
            return [(row[self._positions[0]],) for row in rows]
        return [self._pick(row) for row in rows]


@lru_cache(maxsize=64)
def _prepared(statement: Statement, dialect: sa.Dialect, names: tuple[str, ...]) -> _Prepared:
    return _Prepared(statement, dialect, names)


def _insert_many(text: str, width: int, rows: int) -> str:
    """`INSERT INTO t (a, b) VALUES (?, ?)` with so many rows of values."""
    head, values, _ = text.rpartition(" VALUES ")
    return f"{head}{values}{_values(width, rows)}"


def _update_many(text: str, width: int, rows: int) -> str:
    """`UPDATE t SET a=? WHERE t.id = ?` with the rows as a table to take values from, whose columns SQLite names."""
    change, where, condition = text.partition(" WHERE ")
    columns = iter(range(1, width + 1))
    change, condition = (
        "".join(part if n == 0 else f"new.column{next(columns)}{part}" for n, part in enumerate(side.split("?")))
        for side in (change, condition)
    )
    return f"{change} FROM (VALUES {_values(width, rows)}) AS new{where}{condition}"


def _values(width: int, rows: int) -> str:
    return ", ".join([f"({', '.join('?' * width)})"] * rows)
