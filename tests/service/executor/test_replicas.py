"""Several executors on one database."""

import asyncio
import hashlib
import signal
from pathlib import Path

from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from tests.peers.serving import Served
from tests.peers.sshd import Sshd
from tests.service.executor.conftest import Executor, Run, Start, Task
from tests.service.executor.processes import Process
from tests.service.executor.test_ssh_faults import COUNTED, COUNTING, runs_of
from twinline.executor.v1 import runs_pb2


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


async def grown(executor: Executor, run_id: str, stored: int) -> bool:
    """Whether more output is there than a stopped owner can have stored."""
    return (await executor.task(run_id)).output_size > stored + 500
