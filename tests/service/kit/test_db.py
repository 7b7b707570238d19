"""Opening, migrating and storing times, on SQLite and PostgreSQL."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.peers import postgres
from twinline_kit import db
from twinline_kit.db import DatabaseTooNew, DatabaseUnusable

PACKAGE = "tests.service.kit.sample"
TABLES = sa.MetaData()
SHELF = sa.Table("shelf", TABLES, sa.Column("id", sa.String, primary_key=True), sa.Column("made", db.UtcDateTime))
BOOK = sa.Table("book", TABLES, sa.Column("id", sa.String, primary_key=True), sa.Column("shelf", sa.String))
NOON = datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = db.open(database_url)
    yield engine
    engine.dispose()


def revision(engine: sa.Engine) -> str:
    with engine.connect() as connection:
        return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())


def set_revision(engine: sa.Engine, to: str) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :to"), {"to": to})


def test_migrations_bring_an_empty_database_up_to_date_once(engine: sa.Engine) -> None:
    db.migrate(engine, PACKAGE)
    db.migrate(engine, PACKAGE)
    assert revision(engine) == "0002"
    assert {"shelf", "book"} <= set(sa.inspect(engine).get_table_names())


def test_an_error_does_not_tell_what_was_to_be_stored(engine: sa.Engine) -> None:
    db.migrate(engine, PACKAGE)
    missing = sa.Table("no_such_table", sa.MetaData(), sa.Column("secret", sa.String))
    with engine.begin() as connection, pytest.raises(sa.exc.DBAPIError) as raised:
        connection.execute(sa.insert(missing), {"secret": "hunter2"})
    assert "no_such_table" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_two_that_migrate_at_once_do_it_one_after_the_other(database_url: str) -> None:
    def migrate(_: int) -> str:
        engine = db.open(database_url)
        try:
            db.migrate(engine, PACKAGE)
            return revision(engine)
        finally:
            engine.dispose()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(migrate, range(4))) == ["0002"] * 4


def test_one_process_may_migrate_several_databases_at_once(tmp_path: Path) -> None:
    def migrate(number: int) -> str:
        engine = db.open(f"sqlite:///{tmp_path / str(number)}.db")
        try:
            db.migrate(engine, PACKAGE)
            return revision(engine)
        finally:
            engine.dispose()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(migrate, range(8))) == ["0002"] * 8


def test_a_table_made_anew_keeps_the_rows_that_refer_to_it(engine: sa.Engine) -> None:
    db.migrate(engine, f"{PACKAGE}")
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE shelf DROP COLUMN width")
        connection.execute(SHELF.insert(), {"id": "a", "made": NOON})
        connection.execute(BOOK.insert(), {"id": "b", "shelf": "a"})
    set_revision(engine, "0001")
    db.migrate(engine, PACKAGE)
    with engine.connect() as connection:
        assert connection.execute(sa.select(BOOK.c.id)).scalars().all() == ["b"]


def test_references_are_enforced_after_a_migration(engine: sa.Engine) -> None:
    db.migrate(engine, PACKAGE)
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:
        connection.execute(BOOK.insert(), {"id": "b", "shelf": "missing"})


def test_a_database_from_the_future_is_left_alone(engine: sa.Engine) -> None:
    db.migrate(engine, PACKAGE)
    set_revision(engine, "9999")
    with pytest.raises(DatabaseTooNew, match=r"9999.*start a newer Twinline"):
        db.migrate(engine, PACKAGE)
    assert revision(engine) == "9999"


def test_times_come_back_aware_and_in_utc(engine: sa.Engine) -> None:
    db.migrate(engine, PACKAGE)
    with engine.begin() as connection:
        connection.execute(SHELF.insert(), {"id": "a", "made": NOON})
        (made,) = connection.execute(sa.select(SHELF.c.made)).scalars()
        assert (made, made.tzinfo) == (NOON, UTC)
        assert connection.execute(sa.select(SHELF.c.id).where(SHELF.c.made <= NOON)).scalars().all() == ["a"]


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_the_first_and_the_last_time_come_back_wherever_the_server_is(
    postgres_server: postgres.Server, zone: str
) -> None:
    times = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    with postgres_server.database() as url:
        there = sa.make_url(url).update_query_dict({"options": f"-c timezone={zone}"})
        engine = db.open(there.render_as_string(hide_password=False))
        db.migrate(engine, PACKAGE)
        with engine.begin() as connection:
            connection.execute(SHELF.insert(), [{"id": str(time.year), "made": time} for time in times])
            assert connection.execute(sa.select(SHELF.c.made).order_by(SHELF.c.made)).scalars().all() == times
        engine.dispose()


def test_a_naive_time_is_refused(engine: sa.Engine) -> None:
    db.migrate(engine, PACKAGE)
    with pytest.raises(sa.exc.StatementError, match="no time zone"), engine.begin() as connection:
        connection.execute(SHELF.insert(), {"id": "a", "made": NOON.replace(tzinfo=None)})


def test_rows_that_are_there_already_are_left_out(engine: sa.Engine) -> None:
    db.migrate(engine, PACKAGE)
    with engine.begin() as connection:
        connection.execute(db.insert_ignore(SHELF, engine), [{"id": "a", "made": NOON}])
        connection.execute(db.insert_ignore(SHELF, engine), [{"id": "a", "made": None}, {"id": "b", "made": NOON}])
        assert connection.execute(sa.select(SHELF.c.id).order_by(SHELF.c.id)).scalars().all() == ["a", "b"]
        assert connection.execute(sa.select(SHELF.c.made).where(SHELF.c.id == "a")).scalar_one() == NOON


def test_writers_wait_for_each_other(engine: sa.Engine) -> None:
    db.migrate(engine, PACKAGE)

    def add(number: int) -> None:
        with engine.begin() as connection:
            connection.execute(sa.select(sa.func.count()).select_from(SHELF)).scalar_one()
            connection.execute(SHELF.insert(), {"id": str(number), "made": NOON})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(100)))
    with engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(SHELF)).scalar_one() == 100


def test_a_database_file_is_for_its_owner_only(tmp_path: Path) -> None:
    db.open(f"sqlite:///{tmp_path / 'mine.db'}").dispose()
    assert (tmp_path / "mine.db").stat().st_mode & 0o777 == 0o600


def test_a_commit_is_on_the_disk_before_it_returns(tmp_path: Path) -> None:
    engine = db.open(f"sqlite:///{tmp_path / 'mine.db'}")
    with engine.connect() as first, engine.connect() as second:  # as every connection of a pool must have it
        modes = [each.exec_driver_sql("PRAGMA synchronous").scalar_one() for each in (first, second)]
    engine.dispose()
    assert modes == [2, 2]


@pytest.mark.parametrize("target", ["missing/x.db", ".", "file/x.db"])
def test_a_path_that_cannot_be_used_says_so(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseUnusable, match="check that its folder exists"):
        db.open(f"sqlite:///{tmp_path / target}")


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("not a database, but long enough to be read as one" * 10)
    with pytest.raises(DatabaseUnusable, match="not a database"):
        db.open(f"sqlite:///{tmp_path / 'x.db'}")


FULL = """
import resource, signal, sys
from twinline_kit import db
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    db.open(sys.argv[1])
except db.DatabaseUnusable as error:
    print(error)
"""


def test_a_disk_that_takes_nothing_more_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, f"sqlite:///{tmp_path / 'x.db'}"]
    environment = {**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"cannot use database {tmp_path / 'x.db'}" in done.stdout


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/name", "no url with secret"])
def test_a_url_of_another_kind_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(DatabaseUnusable, match="sqlite:///path") as caught:
        db.open(url)
    assert "secret" not in caught.value.message


def test_a_server_that_does_not_answer_is_named_without_the_password() -> None:
    with pytest.raises(DatabaseUnusable, match=r"127\.0\.0\.1") as caught:
        db.open("postgresql://user:secret@127.0.0.1:1/name")
    assert "secret" not in caught.value.message
