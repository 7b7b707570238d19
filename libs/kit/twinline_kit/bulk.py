"""Thousands of rows at once, for what every host of a run costs.

SQLAlchemy looks at each parameter of each row; here that is worked out once for a statement. SQLite's driver lets go
of the interpreter at each execution, which then is somebody else's for as long as it likes; here many rows are one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import sqlalchemy as sa

from twinline_kit.db import UtcDateTime

Spelling = Callable[[Sequence[Any]], Sequence[Any]]
Statement = sa.Insert | sa.Update

_SIZES = tuple(2**power for power in range(9, -1, -1))
"""Rows of one statement for SQLite: few sizes, as each is a statement to prepare. 32,766 parameters are the most."""


def execute_many(connection: sa.Connection, statement: Statement, columns: Mapping[str, Sequence[Any]]) -> int:
    """Execute `statement`, a constant, for many rows: the values of each column, one a row. How many rows it met.

    There is all that the statement needs, as columns' defaults are not filled in. An update names its row by bound
    values, and no two rows name the same one. Raises what SQLAlchemy raises.
    """
    if not any(map(len, columns.values())):
        return 0
    prepared = _prepared(statement, connection.dialect, tuple(columns))
    return sum(connection.exec_driver_sql(text, parameters).rowcount for text, parameters in prepared.batches(columns))


class _Prepared:
    """A statement as one dialect's driver takes it."""

    def __init__(self, statement: Statement, dialect: sa.Dialect, names: tuple[str, ...]) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=list(names))
        self._text = str(compiled)
        self._positions: tuple[str, ...] = tuple(compiled.positiontup or ())
        self._spelling: dict[str, Spelling] = {
            name: spelling
            for name, bound in compiled.binds.items()
            if not isinstance(bound.type, sa.Boolean | sa.LargeBinary)  # which drivers take as they are
            and (spelling := _spelling(bound.type, dialect)) is not None
        }
        self._many: dict[int, str] = {}
        if dialect.name == "sqlite":
            is_insert, width = isinstance(statement, sa.Insert), len(self._positions)
            for size in _SIZES:
                self._many[size] = (
                    _insert_many(self._text, size) if is_insert else _update_many(self._text, width, size)
                )

    def batches(self, columns: Mapping[str, Sequence[Any]]) -> Iterator[tuple[str, Any]]:
        """Statements and their parameters."""
        spelt = {name: self._spelling[name](column) for name, column in columns.items() if name in self._spelling}
        columns = {**columns, **spelt}
        if not self._positions:
            rows = zip(*columns.values(), strict=True)
            yield self._text, [dict(zip(columns, row, strict=True)) for row in rows]
            return
        parameters = list(zip(*(columns[name] for name in self._positions), strict=True))
        if not self._many:
            yield self._text, parameters
            return
        start = 0
        for size, text in self._many.items():
            while len(parameters) - start >= size:
                yield text, tuple(chain.from_iterable(parameters[start : start + size]))
                start += size


def _spelling(kind: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> Spelling | None:
    """What a driver takes in place of a column's values; None for what it takes as it is."""
    process = kind.dialect_impl(dialect).bind_processor(dialect)
    if process is None:
        return None
    if not isinstance(kind, UtcDateTime):
        return lambda column: [process(value) for value in column]

    def spell(column: Sequence[Any]) -> Sequence[Any]:
        spelt = {value: process(value) for value in set(column)}  # a run's rows have few times, and each is slow
        return [spelt[value] for value in column]

    return spell


@lru_cache(maxsize=64)
def _prepared(statement: Statement, dialect: sa.Dialect, names: tuple[str, ...]) -> _Prepared:
    return _Prepared(statement, dialect, names)


def _insert_many(text: str, rows: int) -> str:
    """`INSERT INTO t (a, b) VALUES (?, 0)` with so many rows of values."""
    head, values, row = text.rpartition(" VALUES ")
    return f"{head}{values}{', '.join([row] * rows)}"


def _update_many(text: str, width: int, rows: int) -> str:
    """`UPDATE t SET a=? WHERE t.id = ?` with the rows as a table to take values from, whose columns SQLite names."""
    change, where, condition = text.partition(" WHERE ")
    columns = iter(range(1, width + 1))
    change, condition = (
        "".join(part if n == 0 else f"new.column{next(columns)}{part}" for n, part in enumerate(side.split("?")))
        for side in (change, condition)
    )
    values = ", ".join([f"({', '.join('?' * width)})"] * rows)
    return f"{change} FROM (VALUES {values}) AS new{where}{condition}"
