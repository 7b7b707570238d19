"""What ends a wait for PostgreSQL: its own limits, and the line's."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager

import pytest
import sqlalchemy as sa

from tests.peers import postgres
from tests.peers.eventually import eventually
from tests.peers.relay import CHUNK
from twinline_kit import db

PACKAGE = "tests.service.kit.sample"
SHORT = "-c statement_timeout=400ms -c lock_timeout=200ms -c idle_in_transaction_session_timeout=400ms"


@pytest.fixture
def url(postgres_server: postgres.Server) -> Iterator[str]:
    with postgres_server.database() as url:
        yield url


@contextmanager
def opened(url: str, **query: str) -> Iterator[sa.Engine]:
    """The database; `query` goes into its URL."""
    engine = db.open(sa.make_url(url).update_query_dict(query).render_as_string(hide_password=False))
    try:
        yield engine
    finally:
        engine.dispose()


def shown(engine: sa.Engine) -> list[str]:
    """The limits of a connection."""
    with engine.connect() as connection:
        return [str(connection.exec_driver_sql(f"SHOW {limit}").scalar_one()) for limit in db.LIMITS]


def test_every_wait_on_the_server_has_an_end(url: str) -> None:
    with opened(url) as engine:
        assert shown(engine) == ["30s", "10s", "10s"]


def test_options_of_the_url_go_before_ours_and_leave_the_others(url: str) -> None:
    with opened(url, options="-c lock_timeout=200ms -c search_path=books", application_name="mine") as engine:
        assert shown(engine) == ["30s", "200ms", "10s"]
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SHOW search_path").scalar_one() == "books"
            assert connection.exec_driver_sql("SHOW application_name").scalar_one() == "mine"


def test_options_of_the_environment_stay(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c search_path=books")
    with opened(url) as engine, engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW search_path").scalar_one() == "books"


def test_a_statement_that_waits_for_a_lock_ends_with_an_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(db.LIMITS, "lock_timeout", 1)
    with opened(url) as engine, engine.begin() as holder:
        db.migrate(engine, PACKAGE)
        holder.exec_driver_sql("LOCK TABLE book")
        with engine.connect() as waiting, pytest.raises(sa.exc.OperationalError, match="lock timeout"):
            waiting.exec_driver_sql("SELECT * FROM book")


async def test_a_migration_waits_for_another_for_longer_than_statements_may(url: str) -> None:
    with opened(url) as other, opened(url, options=SHORT) as engine, ThreadPoolExecutor(1) as pool:
        with other.begin() as holder, db._alone(holder, PACKAGE):
            migrating = pool.submit(db.migrate, engine, PACKAGE)
            await eventually(lambda: waits_for_a_lock(other))
            holder.exec_driver_sql("SELECT pg_sleep(1)")
            assert not migrating.done()
        migrating.result(timeout=30)
        assert "book" in sa.inspect(engine).get_table_names()
        assert shown(engine) == ["400ms", "200ms", "400ms"]


def waits_for_a_lock(engine: sa.Engine) -> bool:
    with engine.connect() as connection:
        return bool(connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar_one())


@asynccontextmanager
async def over_tcp(url: str) -> AsyncIterator[int]:
    """A port on loopback that leads to the database's socket."""
    path = f"{sa.make_url(url).query['host']}/.s.PGSQL.5432"
    led: set[asyncio.StreamWriter] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        led.add(writer)
        near, far = await asyncio.open_unix_connection(path)
        await asyncio.gather(pump(reader, far), pump(near, writer), return_exceptions=True)
        led.remove(writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield int(server.sockets[0].getsockname()[1])
        await eventually(lambda: not led)


async def test_a_line_that_is_cut_without_a_word_is_given_up_by_the_system(url: str) -> None:
    async with over_tcp(url) as port:
        there = sa.make_url(url).set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)
        assert await asyncio.to_thread(patience, there) == (1, 10, 5, 2, 20_000)


def patience(url: str) -> tuple[int, ...]:
    """Of a connection: whether it is probed; seconds until then, between probes, how many; ms without an answer."""
    probes = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
    with opened(url) as engine, engine.connect() as connection:
        number = connection.connection.driver_connection.fileno()  # type: ignore[union-attr]
        with socket.socket(fileno=os.dup(number)) as line:
            probed = line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            return (probed, *(line.getsockopt(socket.IPPROTO_TCP, option) for option in probes))


@pytest.mark.parametrize(
    "statements",
    [
        ["SELECT pg_terminate_backend(pg_backend_pid())"],
        ["SET statement_timeout = 1", "SELECT pg_sleep(5)"],
        ["SET default_transaction_read_only = on", "COMMIT", "CREATE TABLE shelf (id int)"],  # as after a failover
    ],
)
def test_a_server_that_cannot_work_now_is_away(url: str, statements: list[str]) -> None:
    with opened(url) as engine, engine.connect() as connection:
        *before, last = statements
        for statement in before:
            connection.exec_driver_sql(statement)
        with pytest.raises(db.AWAY):
            connection.exec_driver_sql(last)


@pytest.mark.parametrize("statement", ["SELECT 1 FROM no_such_table", "SELECT FROM FROM", "SELECT 1 / 0"])
def test_a_statement_that_no_server_does_is_a_bug(url: str, statement: str) -> None:
    with opened(url) as engine, engine.connect() as connection, pytest.raises(sa.exc.DBAPIError) as caught:
        connection.exec_driver_sql(statement)
    assert not isinstance(caught.value, db.AWAY)
