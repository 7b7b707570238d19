"""Lines that break in mid-run: nothing is lost, nothing comes twice, nothing runs again."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from tests.peers.eventually import eventually
from tests.peers.relay import Relay, running_relay
from tests.peers.sshd import Sshd
from tests.service.executor.conftest import Executor, Run, Start, Task
from tests.service.executor.left_runs import leave_run
from twinline.executor.v1 import runs_pb2
from twinline.keys.v1 import credentials_pb2, credentials_pb2_grpc
from twinline_journal import Journal, TaskSpec

COUNTING = "echo run >> $HOME/runs; for i in $(seq 400); do echo line $i; sleep 0.005; done"
COUNTED = "".join(f"line {i}\n" for i in range(1, 401)).encode()
RANDOM = "echo run >> $HOME/runs; head -c 3000000 /dev/urandom | tee $HOME/copy"


@pytest.fixture
async def relay(host: Sshd) -> AsyncIterator[Relay]:
    """Between the executor and the host."""
    async with running_relay(host.port) as running:
        yield running


def came_back(relay: Relay, seen: int) -> bool:
    return relay.connections > seen


def runs_of(host: Sshd) -> int:
    return (host.home / "runs").read_text().count("run")


async def test_a_cut_connection_loses_and_repeats_nothing(executor: Executor, host: Sshd, relay: Relay) -> None:
    await executor.add_host(host, port=relay.port)
    started = await executor.start(COUNTING, "web-1")
    await executor.task_becomes(started.id, Task.STATE_RUNNING)
    for seen in (1, 2, 3):
        assert relay.cut() > 0
        await eventually(partial(came_back, relay, seen))
    assert (await executor.ended(started.id)).state == Run.STATE_SUCCEEDED
    assert await executor.output(await executor.task(started.id)) == COUNTED
    assert (runs_of(host), relay.connections) == (1, 4)


@pytest.mark.parametrize("count", [1_000, 3_000, 5_000, 100_000, 1_500_000, 2_999_000])
async def test_a_cut_at_any_byte_leaves_the_output_exact(
    executor: Executor, host: Sshd, relay: Relay, count: int
) -> None:
    await executor.add_host(host, port=relay.port)
    relay.cut_after(count)
    task = await executor.run(RANDOM, "web-1")
    assert task.state == Task.STATE_SUCCEEDED
    assert task.output_sha256 == hashlib.sha256((host.home / "copy").read_bytes()).hexdigest()
    assert task.output_sha256 == hashlib.sha256(await executor.output(task)).hexdigest()
    assert runs_of(host) == 1


async def test_killed_sessions_leave_the_script_running(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    started = await executor.start(COUNTING, "web-1")
    await executor.task_becomes(started.id, Task.STATE_RUNNING)
    assert host.cut_sessions() > 0
    assert (await executor.ended(started.id)).state == Run.STATE_SUCCEEDED
    assert await executor.output(await executor.task(started.id)) == COUNTED
    assert runs_of(host) == 1


async def test_a_host_out_of_reach_is_unknown_and_then_the_truth(
    start_executor: Start, host: Sshd, relay: Relay
) -> None:
    async with start_executor(unknown_after=0.5) as executor:
        await executor.add_host(host, port=relay.port)
        command = "echo begun; while [ ! -e $HOME/go ]; do sleep 0.05; done; echo done; exit 3"
        started = await executor.start(command, "web-1")
        await executor.task_becomes(started.id, Task.STATE_RUNNING)
        host.stop()
        relay.cut()
        lost = await executor.task_becomes(started.id, Task.STATE_UNKNOWN, "PORT_UNREACHABLE")
        assert not lost.settled
        assert (await executor.ended(started.id)).counts.unknown == 1
        await host.start()
        await executor.task_becomes(started.id, Task.STATE_RUNNING)
        (host.home / "go").touch()
        task = await executor.task_becomes(started.id, Task.STATE_FAILED)
        assert (task.exit_status, task.reason, task.settled) == (3, "", True)
        assert await executor.output(task) == b"begun\ndone\n"


async def test_a_stalled_line_is_noticed_and_taken_up_again(start_executor: Start, host: Sshd, relay: Relay) -> None:
    async with start_executor(ssh_keepalive=0.3) as executor:
        await executor.add_host(host, port=relay.port)
        started = await executor.start(COUNTING, "web-1")
        await executor.task_becomes(started.id, Task.STATE_RUNNING)
        relay.stall()
        await eventually(lambda: relay.connections > 1)
        relay.flow()
        await executor.ended(started.id)
        assert await executor.output(await executor.task(started.id)) == COUNTED


async def test_a_lost_process_is_unknown_for_good(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    started = await executor.start("echo begun; sleep 100", "web-1")
    task = await executor.task_becomes(started.id, Task.STATE_RUNNING)
    host.kill_all()
    await host.start()
    await executor.ended(started.id)
    task = await executor.task_becomes(started.id, Task.STATE_UNKNOWN, "PROCESS_GONE")
    assert task.settled
    assert await executor.output(task) == b"begun\n"
    assert task.output_sha256 == hashlib.sha256(b"begun\n").hexdigest()


async def test_an_end_that_promises_more_output_than_there_is_is_not_waited_for(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    record = "reason=exited status=0 signal=0 size=4096 dropped=0 started=1 ended=2"
    task = await executor.run(f"echo begun; echo {record} > ../exit; sleep 100", "web-1")
    assert (task.state, task.reason) == (Task.STATE_UNKNOWN, "JOURNAL_UNREADABLE")
    assert "run it again" in task.message
    assert await executor.output(task) == b"begun\n"


async def test_a_cancel_reaches_a_host_that_comes_back(executor: Executor, host: Sshd, relay: Relay) -> None:
    await executor.add_host(host, port=relay.port)
    started = await executor.start("echo begun; sleep 100", "web-1")
    await executor.task_becomes(started.id, Task.STATE_RUNNING)
    host.stop()
    relay.cut()
    await executor.runs.CancelRun(runs_pb2.CancelRunRequest(run=started.id))
    await host.start()
    assert (await executor.ended(started.id)).state == Run.STATE_CANCELED


async def test_a_host_that_is_away_is_told_of_a_cancel_by_one_only(
    executor: Executor, host: Sshd, relay: Relay
) -> None:
    await executor.add_host(host, port=relay.port)
    started = await executor.start("echo begun; sleep 100", "web-1")
    await executor.task_becomes(started.id, Task.STATE_RUNNING)
    host.stop()
    relay.cut()
    for _ in range(3):
        await executor.runs.CancelRun(runs_pb2.CancelRunRequest(run=started.id))
    telling = [task for task in asyncio.all_tasks() if "_cancel_on_host" in repr(task.get_coro())]
    assert len(telling) == 1


DOOR = """\
case $SSH_ORIGINAL_COMMAND in
*" withdraw task-1") touch $HOME/withdrawing; until [ -e $HOME/go ]; do sleep 0.05; done ;;
esac
exec sh -c "$SSH_ORIGINAL_COMMAND"
"""


async def test_a_cancel_that_comes_while_the_task_is_withdrawn_reaches_the_host(
    start_executor: Start, host: Sshd, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'late.db'}"
    await restarted_behind(host, DOOR)
    async with start_executor(url, replica="a") as executor:
        await executor.add_host(host)
        leave_run(url, owner="a", age=timedelta(hours=1))
        await eventually((host.home / "withdrawing").exists)
        # What was sent in time was on its way still.
        journal = Journal(host.journal("task-1").parent.parent, environ=os.environ | {"HOME": str(host.home)})
        await asyncio.to_thread(journal.start, TaskSpec("task-1", b"#!/bin/sh\nsleep 100\n"))
        await executor.task_becomes("run-1", Task.STATE_RUNNING)
        await executor.runs.CancelRun(runs_pb2.CancelRunRequest(run="run-1"))
        (host.home / "go").touch()
        await executor.task_becomes("run-1", Task.STATE_CANCELED)


async def restarted_behind(host: Sshd, door: str) -> None:
    """Have all that is run on the host pass that script."""
    (host.folder / "door").write_text(door)
    host.stop()
    host.more = f"ForceCommand sh {host.folder}/door"
    await host.start()


async def run_with_a_password(executor: Executor, host: Sshd, end: str) -> Run:
    """A run that has begun, and prints its password once there is a file `go`."""
    command = f'echo begun; while [ ! -e $HOME/go ]; do sleep 0.05; done; echo "$P"; {end}'
    await executor.add_host(host)
    await executor.set_credential("PASSWORD", b"hunter2")
    started = await executor.start(command, "web-1", inputs={"P": "cred:PASSWORD"})
    task = await executor.task_becomes(started.id, Task.STATE_RUNNING)
    pieces = executor.runs.ReadOutput(runs_pb2.ReadOutputRequest(task=task.id, follow=True))
    assert (await anext(aiter(pieces))).data == b"begun\n"
    return started


async def test_a_lost_credential_leaves_running_tasks_their_end_and_hides_their_output(
    start_executor: Start, host: Sshd
) -> None:
    async with start_executor() as executor:
        started = await run_with_a_password(executor, host, "exit 3")
        credentials = credentials_pb2_grpc.CredentialServiceStub(executor.keys.as_person("admin"))
        await credentials.DeleteCredential(credentials_pb2.DeleteCredentialRequest(name="PASSWORD"))
    async with start_executor() as executor:
        (host.home / "go").touch()
        task = await executor.task_becomes(started.id, Task.STATE_FAILED)
        assert (task.exit_status, task.reason) == (3, "")
        assert "credential PASSWORD cannot be opened" in task.message
        assert await executor.output(task) == b"begun\n" + b"*" * len("hunter2\n")


async def test_a_credential_that_was_set_anew_hides_the_output_of_what_ran_with_the_value_before(
    start_executor: Start, host: Sshd
) -> None:
    async with start_executor() as executor:
        started = await run_with_a_password(executor, host, "exit 0")
        await executor.set_credential("PASSWORD", b"hunter3")
    async with start_executor() as executor:
        (host.home / "go").touch()
        task = await executor.task_becomes(started.id, Task.STATE_SUCCEEDED)
        assert "credential PASSWORD was set anew meanwhile" in task.message
        assert await executor.output(task) == b"begun\n" + b"*" * len("hunter2\n")


async def test_a_restarted_executor_goes_on_where_the_output_ends(start_executor: Start, host: Sshd) -> None:
    async with start_executor() as executor:
        await executor.add_host(host)
        started = await executor.start(COUNTING, "web-1")
        task = await executor.task_becomes(started.id, Task.STATE_RUNNING)
        pieces = executor.runs.ReadOutput(runs_pb2.ReadOutputRequest(task=task.id, follow=True))
        assert (await anext(aiter(pieces))).data
    async with start_executor() as executor:
        assert (await executor.ended(started.id)).state == Run.STATE_SUCCEEDED
        task = await executor.task(started.id)
        assert await executor.output(task) == COUNTED
        assert task.output_sha256 == hashlib.sha256(COUNTED).hexdigest()
    assert runs_of(host) == 1
