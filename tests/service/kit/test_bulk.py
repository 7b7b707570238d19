"""Many rows at once are what SQLAlchemy makes of each, on SQLite and PostgreSQL."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from twinline_kit import db
from twinline_kit.bulk import execute_many

TABLES = sa.MetaData()
ITEM = sa.Table(
    "item",
    TABLES,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("kind", sa.Integer, nullable=False),
    sa.Column("done", sa.Boolean, nullable=False),
    sa.Column("made", db.UtcDateTime),
    sa.Column("offset", sa.BigInteger),
    sa.Column("data", sa.LargeBinary),
    sa.Column("words", sa.JSON),
)
INSERT = sa.insert(ITEM)
UPDATE = (
    sa.update(ITEM)
    .where(ITEM.c.id == sa.bindparam("key"), ITEM.c.kind == sa.bindparam("expected"), sa.not_(ITEM.c.done))
    .values(kind=sa.bindparam("kind"), done=sa.bindparam("done"), made=sa.bindparam("made"))
)
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = db.open(database_url)
    TABLES.create_all(engine)
    yield engine
    engine.dispose()


def item(number: int, **other: Any) -> dict[str, Any]:
    made = NOON + timedelta(minutes=number % 3)
    values = {
        "id": f"item-{number:04}", "kind": number, "done": False, "made": made if number % 5 else None,
        "offset": 2**40 + number, "data": bytes([number % 256]) * number, "words": {"what? :a %s": number},
    }  # fmt: skip
    return values | other


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def stored(engine: sa.Engine) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(sa.select(ITEM).order_by(ITEM.c.id)).mappings()]


@pytest.mark.parametrize("count", [1, 2, 511, 512, 1100])
def test_rows_are_stored_as_they_are(engine: sa.Engine, count: int) -> None:
    rows = [item(number) for number in range(count)]
    with engine.begin() as connection:
        assert execute_many(connection, INSERT, columns(rows)) == count
    assert stored(engine) == rows


def test_nothing_to_do_is_done(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        assert execute_many(connection, INSERT, {}) == 0
        assert execute_many(connection, INSERT, {name: [] for name in item(0)}) == 0
    assert stored(engine) == []


def test_only_rows_that_are_as_expected_are_changed_and_counted(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        execute_many(connection, INSERT, columns([item(number, done=number == 7) for number in range(1050)]))
        changes = [
            {"key": f"item-{number:04}", "expected": number + (number == 9), "kind": 5000, "done": True, "made": NOON}
            for number in range(1100)
        ]
        assert execute_many(connection, UPDATE, columns(changes)) == 1048
    untouched = [row for row in stored(engine) if row["kind"] != 5000]
    assert untouched == [item(7, done=True), item(9)]
    assert {row["made"] for row in stored(engine) if row["kind"] == 5000} == {NOON}


def test_a_row_that_cannot_be_stored_fails_all(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        execute_many(connection, INSERT, columns([item(3)]))
    with pytest.raises(IntegrityError), engine.begin() as connection:
        execute_many(connection, INSERT, columns([item(number) for number in range(200)]))
    assert stored(engine) == [item(3)]


def test_one_parameter_is_enough(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        execute_many(connection, INSERT, columns([item(number) for number in range(5)]))
        done = sa.update(ITEM).where(ITEM.c.id == sa.bindparam("key")).values(done=sa.true())
        assert execute_many(connection, done, {"key": ["item-0001", "item-0003"]}) == 2
    assert [row["kind"] for row in stored(engine) if row["done"]] == [1, 3]


def test_what_a_statement_says_itself_is_the_same_for_all_rows(engine: sa.Engine) -> None:
    same: sa.ColumnElement[int] = sa.literal_column("7")
    insert = sa.insert(ITEM).values(kind=same, done=sa.false())
    with engine.begin() as connection:
        names = [f"item-{number:04}" for number in range(130)]
        assert execute_many(connection, insert, {"id": names, "made": [NOON] * 130}) == 130
    assert [(row["id"], row["kind"], row["done"], row["made"]) for row in stored(engine)] == [
        (name, 7, False, NOON) for name in names
    ]
