"""One script on v4 and on v5: the same state, the same ending, the same bytes."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.runs import Task, runs_of
from tests.peers.site import processes_of
from tests.suite.running import Suite

pytestmark = pytest.mark.timeout(180)

FIVE_MIB = 5 << 20
EVERY_BYTE = bytes(range(256))
LISTENING = "0A"


@dataclass(frozen=True)
class Case:
    """A script, how it ends and what it prints."""

    command: str
    output: bytes
    exit_status: int = 0
    signal: int = 0


def printed(data: bytes) -> str:
    """A command that prints any bytes."""
    return "printf '" + "".join(f"\\{byte:03o}" for byte in data) + "'"


CASES = {
    "every byte there is": Case(printed(EVERY_BYTE), EVERY_BYTE),
    "no final newline": Case("printf 'one\\ntwo'", b"one\ntwo"),
    "no UTF-8": Case(printed(b"caf\xe9 \xff\xfe\n"), b"caf\xe9 \xff\xfe\n"),
    "nothing at all": Case("true", b""),
    "both streams in order": Case("echo 1; echo 2 >&2; echo 3; echo 4 >&2", b"1\n2\n3\n4\n"),
    "exit 1": Case("echo before; exit 1; echo after", b"before\n", exit_status=1),
    "signal 9": Case("echo before; kill -9 $$; echo after", b"before\n", exit_status=137, signal=9),
    "exit 137": Case("echo before; exit 137", b"before\n", exit_status=137),
    "signal 15": Case("echo before; kill -15 $$; sleep 5", b"before\n", exit_status=143, signal=15),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_a_script_ends_and_prints_alike(site: Suite, case: Case) -> None:
    async with runs_of(site.home) as runs:
        tasks = await runs.run(case.command, "deployment:site and name:web-*")
        state = Task.STATE_FAILED if case.exit_status else Task.STATE_SUCCEEDED
        digest = hashlib.sha256(case.output).hexdigest()
        assert [task.line for task in tasks] == [Task.LINE_SSH, Task.LINE_AGENT]
        for task in tasks:
            assert (task.state, task.exit_status, task.signal) == (state, case.exit_status, case.signal)
            assert (task.output_size, task.output_sha256) == (len(case.output), digest)
            assert await runs.output(task) == case.output


async def test_5_mib_of_noise_arrive_unaltered(site: Suite, tmp_path: Path) -> None:
    noise = os.urandom(FIVE_MIB)
    (tmp_path / "noise").write_bytes(noise)
    async with runs_of(site.home) as runs:
        tasks = await runs.run('cat "$FILE"', "name:web-*", {"FILE": f"text:{tmp_path / 'noise'}"})
        for task in tasks:
            assert (task.state, task.exit_status, task.output_size) == (Task.STATE_SUCCEEDED, 0, FIVE_MIB)
            assert task.output_sha256 == hashlib.sha256(noise).hexdigest()
            assert await runs.output(task) == noise


async def test_only_v4_listens(site: Suite, tmp_path: Path) -> None:
    async with runs_of(site.home) as runs:
        run = await runs.start(
            'echo on; until [ -e "$GO" ]; do sleep 0.1; done', "name:web-*", {"GO": f"text:{tmp_path / 'go'}"}
        )
        try:
            await runs.grows(run, by=0)
            assert listening_sockets(site, "web-1")
            assert not listening_sockets(site, "web-2")
        finally:
            (tmp_path / "go").touch()
        await runs.ended(run)


def listening_sockets(site: Suite, server: str) -> set[str]:
    """Inodes of listening TCP sockets that any process of the server's machine has open."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    listening = {fields[9] for fields in lines if fields[3] == LISTENING}
    return {socket for each in processes_of(site, server) for socket in sockets(each.pid)} & listening


def sockets(pid: int) -> set[str]:
    try:
        links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:  # it has ended meanwhile
        return set()
    return {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:[")}
