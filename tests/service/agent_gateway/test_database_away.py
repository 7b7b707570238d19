"""A gateway whose PostgreSQL database keeps it waiting for a while, and then refuses."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from tests.peers import postgres
from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from tests.peers.outages import away
from tests.peers.serving import Served
from tests.service.agent_gateway.executors import Executor
from tests.service.agent_gateway.running import Gateway, gateway_settings, running_gateway
from tests.service.agent_gateway.simulated import finished, simulated
from twinline_kit import db


@pytest.fixture
def database(postgres_server: postgres.Server) -> Iterator[sa.URL]:
    with postgres_server.database() as url:
        yield sa.make_url(url)


@pytest.fixture
async def gateway(authority: Certificates, tmp_path: Path, keys: Served, database: sa.URL) -> AsyncIterator[Gateway]:
    """One that waits for two seconds at most."""
    impatient = database.update_query_dict({"options": "-c lock_timeout=2s"})
    url = impatient.render_as_string(hide_password=False)
    settings = gateway_settings(authority, tmp_path / "gateway", keys, url, replica_limit=1.0)
    async with running_gateway(authority, settings) as running:
        yield running


@contextmanager
def agents_locked(database: sa.URL) -> Iterator[psycopg.Connection]:
    """Nobody else can read the table of agents within the block."""
    url = database.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE agents IN ACCESS EXCLUSIVE MODE")
        yield connection


async def test_agents_that_are_here_are_told_all_while_the_database_answers_nothing_of_others(
    gateway: Gateway, executor: Executor, database: sa.URL
) -> None:
    elsewhere = (await gateway.enrollment()).agent_id
    async with simulated(gateway) as here:
        running = await executor.run(here.agent_id, "true")
        await here.orders()
        with agents_locked(database):
            lost = await executor.run(elsewhere, "true")
            await executor.order(here.agent_id, cancel=[running])
            assert list((await here.orders()).cancel) == [running]
            assert lost not in executor.not_connected
            await eventually(lambda: executor.not_connected[lost] == "LOST")
        await here.report(finished(running))
        await eventually(lambda: executor.result(running))
        again = await executor.run(elsewhere, "true")
        await eventually(lambda: executor.not_connected[again] == "NEVER_ENROLLED")
    assert executor.ended is None


async def test_a_replica_lives_on_while_more_look_ups_than_it_has_threads_wait_for_the_database(
    gateway: Gateway, database: sa.URL
) -> None:
    elsewhere = (await gateway.enrollment()).agent_id
    async with AsyncExitStack() as stack:
        channel = gateway.served.as_service("executor")
        executors = [await stack.enter_async_context(Executor().connected(channel, f"executor-{n}")) for n in range(8)]
        with agents_locked(database) as connection:
            for executor in executors:
                await executor.run(elsewhere, "true")
            await eventually(lambda: any(executor.not_connected for executor in executors))
            lives = connection.execute("SELECT expire_time > clock_timestamp() FROM replicas").fetchall()
        assert lives == [(True,)]


async def test_a_replica_that_stops_while_the_database_is_away_ends_as_others_do(
    authority: Certificates, tmp_path: Path, keys: Served, database: sa.URL
) -> None:
    url = database.render_as_string(hide_password=False)
    engine = db.open(url)
    with ExitStack() as until_it_ended:
        async with running_gateway(authority, gateway_settings(authority, tmp_path / "gateway", keys, url)):
            until_it_ended.enter_context(away(engine, "replicas"))
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM replicas")).scalar_one() == 1
    engine.dispose()
