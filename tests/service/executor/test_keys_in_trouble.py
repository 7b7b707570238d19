"""The keys service answers, and not with what was asked: its database is away, or it meets a bug. All of it passes."""

import sqlite3
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.peers.sshd import Sshd
from tests.service.executor.conftest import Executor, Run, Start, Task

AWAY = ("ALTER TABLE {0} RENAME TO hidden", "ALTER TABLE hidden RENAME TO {0}")
BUG = ("UPDATE {0} SET {1} = 'x' || {1}", "UPDATE {0} SET {1} = substr({1}, 2)")
"""A time in the table cannot be read: an error that the keys service does not expect."""

COLUMN = {"cloud_keys": "create_time", "credentials": "update_time"}


@contextmanager
def trouble(folder: Path, table: str, kind: tuple[str, str]) -> Iterator[None]:
    """Within the block, keys fails with an error of its own when it reads this table."""
    spoil, mend = (statement.format(table, COLUMN[table]) for statement in kind)
    execute(folder, spoil)
    try:
        yield
    finally:
        execute(folder, mend)


def execute(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "keys" / "keys.db", timeout=10)) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize("kind", [AWAY, BUG])
async def test_a_run_waits_for_its_credentials(
    executor: Executor, host: Sshd, tmp_path: Path, kind: tuple[str, str]
) -> None:
    await executor.add_host(host)
    await executor.set_credential("PASSWORD", b"hunter2")
    with trouble(tmp_path, "credentials", kind):
        started = await executor.start('echo "${#P}"', "web-1", inputs={"P": "cred:PASSWORD"})
        await executor.task_becomes(started.id, Task.STATE_PENDING, "KEYS_UNAVAILABLE")
    assert (await executor.ended(started.id)).state == Run.STATE_SUCCEEDED
    assert await executor.output(await executor.task(started.id)) == b"7\n"


@pytest.mark.parametrize("kind", [AWAY, BUG])
async def test_a_run_waits_for_its_cloud_key(
    executor: Executor, host: Sshd, tmp_path: Path, kind: tuple[str, str]
) -> None:
    await executor.add_host(host)
    with trouble(tmp_path, "cloud_keys", kind):
        started = await executor.start("true", "web-1")
        await executor.task_becomes(started.id, Task.STATE_PENDING, "KEYS_UNAVAILABLE")
    assert (await executor.ended(started.id)).state == Run.STATE_SUCCEEDED


async def test_a_run_waits_for_its_signature(start_executor: Start, host: Sshd, tmp_path: Path) -> None:
    async with start_executor(ssh_idle=0.1) as executor:
        await executor.add_host(host)
        assert (await executor.run("true", "web-1")).state == Task.STATE_SUCCEEDED  # so the key itself is known
        host.kill_all()
        await host.start()
        with trouble(tmp_path, "cloud_keys", BUG):
            started = await executor.start("true", "web-1")
            await executor.task_becomes(started.id, Task.STATE_PENDING, "KEYS_UNAVAILABLE")
        assert (await executor.ended(started.id)).state == Run.STATE_SUCCEEDED


async def test_open_connections_are_used(start_executor: Start, host: Sshd, tmp_path: Path) -> None:
    async with start_executor(ssh_key_known=0.0) as executor:
        await executor.add_host(host)
        assert (await executor.run("true", "web-1")).state == Task.STATE_SUCCEEDED
        with trouble(tmp_path, "cloud_keys", BUG):
            assert (await executor.run("true", "web-1")).state == Task.STATE_SUCCEEDED


async def test_who_takes_a_run_over_waits_for_its_credentials_and_shows_its_output(
    start_executor: Start, host: Sshd, tmp_path: Path
) -> None:
    command = 'echo begun; until [ -e $HOME/go ]; do sleep 0.05; done; echo "$P" and more'
    async with start_executor() as first:
        await first.add_host(host)
        await first.set_credential("PASSWORD", b"hunter2")
        started = await first.start(command, "web-1", inputs={"P": "cred:PASSWORD"})
        await first.task_becomes(started.id, Task.STATE_RUNNING)
    async with AsyncExitStack() as stack:
        with trouble(tmp_path, "credentials", BUG):
            heir = await stack.enter_async_context(start_executor(unknown_after=0.1))
            (host.home / "go").touch()
            await heir.task_becomes(started.id, Task.STATE_UNKNOWN, "KEYS_UNAVAILABLE")
        task = await heir.task_becomes(started.id, Task.STATE_SUCCEEDED)
        assert await heir.output(task) == b"begun\n" + b"*" * 7 + b" and more\n"


async def test_a_record_that_was_altered_is_no_trouble_that_passes(
    executor: Executor, host: Sshd, tmp_path: Path
) -> None:
    await executor.add_host(host)
    await executor.set_credential("PASSWORD", b"hunter2")
    execute(tmp_path, "UPDATE credentials SET sealed = substr(sealed, 1, length(sealed) - 1)")
    task = await executor.run("true", "web-1", inputs={"P": "cred:PASSWORD"})
    assert (task.state, task.reason) == (Task.STATE_REFUSED, "SEAL_BROKEN")
