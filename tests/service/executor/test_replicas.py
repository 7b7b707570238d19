"""Several executors on one database."""

import asyncio
import hashlib
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from tests.peers.outages import away
from tests.peers.serving import Served
from tests.peers.sshd import Sshd
from tests.service.executor.conftest import Executor, Run, Start, Task
from tests.service.executor.processes import Process
from tests.service.executor.test_ssh_faults import COUNTED, COUNTING, runs_of
from twinline.executor.v1 import runs_pb2, targets_pb2
from twinline_executor.store.owners import OwnerStore
from twinline_kit import db


async def test_any_replica_shows_and_cancels_a_run(start_executor: Start, host: Sshd, shared_database: str) -> None:
    async with start_executor(shared_database) as owner, start_executor(shared_database) as other:
        await owner.add_host(host)
        started = await owner.start("echo begun; sleep 100", "web-1")
        task = await other.task_becomes(started.id, Task.STATE_RUNNING)
        pieces = other.runs.ReadOutput(runs_pb2.ReadOutputRequest(task=task.id, follow=True))
        assert (await anext(aiter(pieces))).data == b"begun\n"
        watching = asyncio.ensure_future(other.ended(started.id))
        await other.runs.CancelRun(runs_pb2.CancelRunRequest(run=started.id))
        assert (await watching).state == Run.STATE_CANCELED
        assert [piece async for piece in pieces] == []


async def test_a_killed_owner_s_runs_are_taken_over(
    start_executor: Start, authority: Certificates, keys: Served, host: Sshd, shared_database: str, tmp_path: Path
) -> None:
    async with start_executor(shared_database) as other:
        await other.add_host(host)
        owner = Process(authority, keys, shared_database, tmp_path / "owner")
        try:
            started = await owner.start_run(COUNTING)
            await other.task_becomes(started.id, Task.STATE_RUNNING)
            owner.kill()
            assert (await other.ended(started.id)).state == Run.STATE_SUCCEEDED
        finally:
            owner.kill()
        task = await other.task(started.id)
        assert await other.output(task) == COUNTED
        assert task.output_sha256 == hashlib.sha256(COUNTED).hexdigest()
        assert runs_of(host) == 1


async def test_an_owner_that_was_stopped_for_a_while_does_no_harm(
    start_executor: Start, authority: Certificates, keys: Served, host: Sshd, shared_database: str, tmp_path: Path
) -> None:
    async with start_executor(shared_database) as other:
        await other.add_host(host)
        owner = Process(authority, keys, shared_database, tmp_path / "owner")
        try:
            started = await owner.start_run(COUNTING)
            task = await other.task_becomes(started.id, Task.STATE_RUNNING)
            owner.process.send_signal(signal.SIGSTOP)
            stored = task.output_size
            # Stopped in mid-transaction, it holds its run until the database ends its session.
            has_grown: bool = await eventually(lambda: grown(other, started.id, stored), within=60)
            assert has_grown
            owner.process.send_signal(signal.SIGCONT)
            assert (await other.ended(started.id)).state == Run.STATE_SUCCEEDED
        finally:
            owner.kill()
        assert await other.output(await other.task(started.id)) == COUNTED
        assert runs_of(host) == 1


@pytest.fixture
def engine(shared_database: str) -> Iterator[sa.Engine]:
    """That database, as the executor has set it up."""
    engine = db.open(shared_database)
    yield engine
    engine.dispose()


async def test_who_does_not_beat_while_the_database_is_away_is_not_taken_for_dead(
    start_executor: Start, shared_database: str, engine: sa.Engine
) -> None:
    owners = OwnerStore(engine)
    async with start_executor(shared_database, replica="b", beat_limit=5.0):
        owners.beat("a")
        await beats_again(owners, "b", times=2)
        began = time.monotonic()
        with away(engine, "replicas"):
            await eventually(lambda: time.monotonic() - began > 6)
        await beats_again(owners, "b", times=2)
        assert "a" in owners.beats()
        await eventually(lambda: "a" not in owners.beats())  # it never beats again


async def test_a_replica_beats_again_soon_after_its_database_is_back(
    start_executor: Start, shared_database: str, engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def failures() -> int:
        return [getattr(record, "step", "") for record in caplog.records].count("replicas")

    async with start_executor(shared_database, replica="b"):
        await beats_again(OwnerStore(engine), "b", times=1)
        with away(engine, "replicas"):
            await eventually(lambda: failures() > 5, within=30)
        await beats_again(OwnerStore(engine), "b", times=1, within=3.0)


async def test_a_replica_that_stops_while_the_database_is_away_ends_as_others_do(
    start_executor: Start, shared_database: str, engine: sa.Engine
) -> None:
    with ExitStack() as until_it_ended:
        async with start_executor(shared_database, replica="b"):
            await beats_again(OwnerStore(engine), "b", times=1)
            until_it_ended.enter_context(away(engine, "replicas"))
    assert OwnerStore(engine).beats().keys() == {"b"}


@pytest.mark.parametrize("threads", [2, 32])
async def test_a_replica_beats_on_while_more_calls_than_it_has_threads_wait_for_the_database(
    start_executor: Start, shared_database: str, engine: sa.Engine, threads: int
) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads))
    async with start_executor(shared_database, replica="b") as executor:
        await beats_again(OwnerStore(engine), "b", times=1)
        with psycopg.connect(sa.make_url(shared_database).set(drivername="postgresql").render_as_string()) as holder:
            holder.execute("LOCK TABLE targets IN ACCESS EXCLUSIVE MODE")
            listing = [executor.targets.ListTargets(targets_pb2.ListTargetsRequest()) for _ in range(4 * threads)]
            await eventually(lambda: waiting_for_locks(engine) == threads)
            await beats_again(OwnerStore(engine), "b", times=3)
        assert [len((await each).targets) for each in listing] == [0] * 4 * threads


def waiting_for_locks(engine: sa.Engine) -> int:
    """How many statements wait for a lock."""
    with engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar_one())


async def beats_again(owners: OwnerStore, replica: str, *, times: int, within: float = 10.0) -> None:
    """Wait until that replica has said so many times that it lives."""
    before = owners.beats().get(replica, 0)
    await eventually(lambda: owners.beats()[replica] >= before + times, within=within)


async def grown(executor: Executor, run_id: str, stored: int) -> bool:
    """Whether more output is there than a stopped owner can have stored."""
    return (await executor.task(run_id)).output_size > stored + 500
