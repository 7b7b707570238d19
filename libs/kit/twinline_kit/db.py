"""Databases: opening SQLite or PostgreSQL by URL, bringing the schema up to date, and times that stay in UTC."""

import json
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.types import TypeDecorator

from twinline_kit import files
from twinline_kit.errors import FailedPrecondition, Unavailable

_BUSY_TIMEOUT = 30  # seconds to wait for another writer
# More than asyncio has threads, 32 at most, so that a service's heartbeat, which has its own, never waits for one.
_POOL = {"pool_size": 8, "max_overflow": 32, "pool_timeout": 30}
# Errors are logged with their statement, and what is stored with it is sealed keys, hashes and people's inputs.
_SILENT = {"hide_parameters": True}

LIMITS = {"statement_timeout": 30, "lock_timeout": 10, "idle_in_transaction_session_timeout": 10}
"""Seconds on PostgreSQL: of one statement, of its wait for a lock, and of a transaction's wait for its next statement.

The last one lets others on when a process stands still while it holds locks. What the `options` of a database's URL say
goes before this.
"""

SILENCE = 20
"""Seconds without a sign of life from the server's machine after which a connection is given up."""

AWAY = (OperationalError, InterfaceError, InternalError, PoolTimeout)
"""What is raised when the database cannot do its work now: a lost connection, a limit, no room on its disk, a server
that is not the primary any more.

The same call may succeed in a moment. All else that a database raises is a bug of ours; and so is some of this on
SQLite, which has no other word for a statement that it does not understand.
"""

# Alembic keeps the migration under way in module globals.
_one_at_a_time = threading.Lock()


class DatabaseUnusable(FailedPrecondition):
    """The database cannot be opened or written."""

    reason = "DATABASE_UNUSABLE"


class DatabaseTooNew(FailedPrecondition):
    """The database was made by a newer Twinline than this one."""

    reason = "DATABASE_TOO_NEW"


class DatabaseUnavailable(Unavailable):
    """The service's database cannot do its work now."""

    reason = "DATABASE_UNAVAILABLE"


class _SqliteDateTime(sqlite.DATETIME):
    """The same text as SQLAlchemy's own type writes and reads, in a fifth of the time: each host of a run has some."""

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[datetime | None], str | None]:
        """`2026-05-01 12:00:00.000000`."""
        return lambda value: value.isoformat(" ", "microseconds")[:26] if value else None  # less its zone

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[str | None], datetime | None]:
        """A naive datetime."""
        return lambda text: datetime.fromisoformat(text) if text else None


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: aware datetimes in, UTC out, on both databases. A naive datetime is refused with ValueError."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """How the database keeps it."""
        if dialect.name == "sqlite":
            return _SqliteDateTime()  # type: ignore[no-untyped-call]
        return dialect.type_descriptor(sa.DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """To UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone: use clock.now()")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """SQLite has forgotten the zone, PostgreSQL answers in the session's."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def open(url: str) -> sa.Engine:  # read as db.open
    """An engine for `sqlite:///path` or `postgresql://...`, tried out once: DatabaseUnusable says what is wrong."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        # The text may hold a password, so it is not repeated.
        raise DatabaseUnusable(
            "the database url cannot be read: give sqlite:///path or postgresql://host/name"
        ) from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return _open_sqlite(parsed)
    if backend == "postgresql":
        return _open_postgresql(parsed)
    raise DatabaseUnusable(f"no support for {backend} databases: give sqlite:///path or postgresql://host/name")


def migrate(engine: sa.Engine, package: str, *, to: str = "head") -> None:
    """Bring the schema up to the newest revision in `<package>/migrations/versions`, or `to` one, in one transaction.

    Of several processes that start at once one migrates while the others wait. DatabaseTooNew when the database has
    a revision that the code does not know.
    """
    script = _script(package)
    with _one_at_a_time, engine.connect() as connection, _alone(connection, package):
        _refuse_newer(connection, script, package)
        _upgrade(connection, script, to)
        _check_references(connection)
        connection.commit()


def insert_ignore(table: Any, engine: sa.Engine) -> sa.Insert:
    """An INSERT into `table` (a Table or a mapped class) that leaves out rows which conflict with existing ones."""
    if engine.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


_DECODE = json.JSONDecoder().raw_decode


def _from_json(text: str) -> Any:
    """What we wrote: it has no blanks around it, for which `json.loads` looks at a third of the speed."""
    return _DECODE(text)[0]


def _open_sqlite(url: sa.URL) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise DatabaseUnusable("a database in memory is lost with its connection: give sqlite:///path")
    path = Path(url.database)
    # IMMEDIATE: a transaction takes the write lock with its first write and waits for it, instead of failing later.
    arguments = {"timeout": _BUSY_TIMEOUT, "isolation_level": "IMMEDIATE"}
    engine = sa.create_engine(
        url.set(drivername="sqlite"), connect_args=arguments, json_deserializer=_from_json, **_POOL, **_SILENT
    )
    event.listen(engine, "connect", _prepare_sqlite)
    try:
        if not path.exists():
            files.create(path, b"")  # for its owner only: it will hold secrets; SQLite's side files get the same mode
        with engine.connect() as connection:
            _try_writing(connection)
    except OSError as error:
        raise _unusable(path, (error.strerror or str(error)).lower()) from error
    except DBAPIError as error:
        engine.dispose()
        raise _unusable(path, str(error.orig)) from error
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    _use_wal(connection)
    # What was answered must outlive a power cut: a run or a machine whose row is gone would be started again.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Turn the write-ahead log on. The first time needs the file to itself, for which SQLite itself does not wait."""
    deadline = time.monotonic() + _BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _try_writing(connection: sa.Connection) -> None:
    """Write what is there already, to learn now whether the disk takes it."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    connection.exec_driver_sql(f"PRAGMA user_version={int(version)}")
    connection.commit()


def _unusable(path: Path, why: str) -> DatabaseUnusable:
    text = f"cannot use database {path}: {why}; check that its folder exists, is writable, and has free space"
    return DatabaseUnusable(text, path=str(path))


def _open_postgresql(url: sa.URL) -> sa.Engine:
    arguments = _postgresql_arguments(url)
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"), connect_args=arguments, pool_pre_ping=True, **_POOL, **_SILENT
    )
    try:
        engine.connect().close()
    except DBAPIError as error:
        engine.dispose()
        where = url.render_as_string(hide_password=True)
        why = " ".join(str(error.orig).split())
        raise DatabaseUnusable(f"cannot use database {where}: {why}", url=where) from error
    return engine


def _postgresql_arguments(url: sa.URL) -> dict[str, Any]:
    """How we connect: every wait has an end, on the server and on the line. What the URL says itself holds.

    Not so its time zone: in another than UTC the first and last hours that can be stored cannot be read.
    """
    ours = [f"-c {name}={seconds}s" for name, seconds in LIMITS.items()]
    theirs = url.normalized_query.get("options") or (os.environ.get("PGOPTIONS", ""),)  # which ours would displace
    given = {
        "connect_timeout": 10,
        "application_name": "twinline",
        "keepalives_idle": SILENCE // 2,
        "keepalives_interval": SILENCE // 4,
        "keepalives_count": 2,
        "tcp_user_timeout": SILENCE * 1000,
    }
    options = " ".join([*ours, *theirs, "-c timezone=UTC"])  # of two that differ the server takes the later
    return {name: value for name, value in given.items() if name not in url.query} | {"options": options}


def _script(package: str) -> ScriptDirectory:
    module = import_module(package)
    folder = Path(next(iter(module.__path__))) / "migrations"
    return ScriptDirectory(str(folder), version_locations=[str(folder / "versions")])


@contextmanager
def _alone(connection: sa.Connection, package: str) -> Iterator[None]:
    """Hold the lock that lets one process migrate at a time, in the transaction that the migrations run in."""
    if connection.dialect.name == "postgresql":
        for limit in LIMITS:
            connection.exec_driver_sql(f"SET LOCAL {limit} = 0")  # a large table takes its time, and others wait for it
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(zlib.crc32(f"twinline {package}".encode()))))
        yield
        return
    # Batch mode copies a table and drops the old one, which enforced references would turn into deletes.
    connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.rollback()  # of nothing, once committed
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")


def _refuse_newer(connection: sa.Connection, script: ScriptDirectory, package: str) -> None:
    known = {revision.revision for revision in script.walk_revisions()}
    unknown = set(MigrationContext.configure(connection).get_current_heads()) - known
    if unknown:
        found = ", ".join(sorted(unknown))
        text = (
            f"the database of {package} has revision {found}, which this version does not know: start a newer Twinline"
        )
        raise DatabaseTooNew(text, package=package, revision=found)


def _upgrade(connection: sa.Connection, script: ScriptDirectory, to: str) -> None:
    def steps(revision: Any, _: MigrationContext) -> Any:
        return script._upgrade_revs(to, revision)  # what alembic's own upgrade command calls

    with EnvironmentContext(Config(), script, fn=steps, destination_rev=to) as environment:
        environment.configure(connection=connection, render_as_batch=True)
        environment.run_migrations()


def _check_references(connection: sa.Connection) -> None:
    if connection.dialect.name != "sqlite":
        return
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        raise DatabaseUnusable(
            f"the migration would leave {len(broken)} rows without what they refer to; nothing was changed"
        )
