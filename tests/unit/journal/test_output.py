"""What becomes of what a script writes."""

import os
import shlex
import signal
import subprocess

import pytest

from tests.peers.eventually import eventually
from tests.unit.journal.host import Host, alive, command_line, framed, last_status
from twinline_journal import run_command

_MOUNT = "mount -t tmpfs -o size=1m none"
ON_A_SMALL_DISK = f"""unshare -rm sh -c '{_MOUNT} "$TWINLINE_JOURNAL" && exec sh -c "$1"' sh"""
"""Runs the command line that follows where the journal is on a disk of 1 MiB."""
_mounted = subprocess.run(["unshare", "-rm", *_MOUNT.split(), "/mnt"], capture_output=True, check=False)
MAY_MOUNT = _mounted.returncode == 0


async def test_output_past_the_limit_is_cut_off_and_the_script_goes_on(host: Host) -> None:
    status = await host.run("head -c 3000000 /dev/zero; echo end", max_output=100_000)
    assert (status.exit_status, status.output_size, status.truncated) == (0, 100_000, True)
    assert host.output() == bytes(100_000)
    assert host.told().truncated


async def test_output_past_the_limit_frees_the_disk_while_the_script_runs(host: Host) -> None:
    host.start("head -c 3000000 /dev/zero; sleep 60", max_output=100_000)
    await eventually(lambda: host.file("dropped").exists() and host.file("output").stat().st_size == 100_000)
    assert host.told().output_size == 100_000


async def test_what_a_script_leaves_running_does_not_hold_up_its_end(host: Host) -> None:
    status = await host.run("(sleep 60; echo late) & echo early")
    assert (status.exit_status, host.output()) == (0, b"early\n")
    assert last_status(host.remote(run_command("task-1"), framed("")).stderr) == status


async def test_a_script_that_opens_its_output_again_loses_nothing(host: Host) -> None:
    await host.run("echo one; echo two >/dev/stderr; echo three >/dev/stdout; echo four; exec >/dev/stderr; echo five")
    assert host.output() == b"one\ntwo\nthree\nfour\nfive\n"


async def test_all_that_a_script_wrote_is_there_although_a_child_holds_its_output(host: Host) -> None:
    status = await host.run("sleep 60 & head -c 5000000 /dev/zero; echo end")
    assert (status.exit_status, status.output_size, status.truncated) == (0, 5_000_004, False)
    assert host.output() == bytes(5_000_000) + b"end\n"


async def test_what_a_child_writes_after_the_end_of_its_script_goes_nowhere_and_does_not_end_it(host: Host) -> None:
    done = host.folder / "done"
    await host.run(f"(until [ -e '{host.folder}/go' ]; do sleep 0.05; done; seq 1 100000; touch '{done}') & echo $!")
    output = host.output()
    (host.folder / "go").touch()
    await eventually(done.exists)
    assert host.output() == output
    assert host.file("output").stat().st_size == len(output)
    await eventually(lambda: host.processes() == [])


async def test_a_script_whose_copier_was_killed_goes_on_and_its_output_says_that_it_is_cut(host: Host) -> None:
    go = host.folder / "go"
    host.start(f"echo before; until [ -e '{go}' ]; do sleep 0.05; done; head -c 300000 /dev/zero; exit 4")
    await host.said(b"before")
    (copier,) = [pid for pid in host.processes() if b"cat\0" in command_line(pid)]
    os.kill(copier, signal.SIGKILL)
    await eventually(lambda: not alive(copier))
    go.touch()
    status = await host.ended()
    assert (status.exit_status, status.truncated, host.output()) == (4, True, b"before\n")


async def test_what_a_script_leaves_running_outlives_a_copier_that_was_killed(host: Host) -> None:
    go, later, done = host.folder / "go", host.folder / "later", host.folder / "done"
    child = f"(until [ -e '{later}' ]; do sleep 0.05; done; seq 1 100000; touch '{done}') &"
    host.start(f"{child} echo before; until [ -e '{go}' ]; do sleep 0.01; done")
    await host.said(b"before")
    (copier,) = [pid for pid in host.processes() if b"cat\0" in command_line(pid)]
    os.kill(copier, signal.SIGKILL)
    go.touch()
    assert (await host.ended()).truncated
    later.touch()
    await eventually(done.exists)
    await eventually(lambda: host.processes() == [])


@pytest.mark.skipif(not MAY_MOUNT, reason="this account may not mount a small disk")
def test_a_script_on_a_full_disk_goes_on_and_its_output_says_that_it_is_cut(host: Host) -> None:
    host.root.mkdir()
    ballast = f"'{host.root}/ballast'"
    script = f"head -c 600000 /dev/zero >{ballast}; head -c 1000000 /dev/zero; rm {ballast}; echo end; exit 4"
    answer = host.remote(f"{ON_A_SMALL_DISK} {shlex.quote(run_command('task-1'))}", framed(script))
    status = last_status(answer.stderr)
    assert (status.exit_status, status.truncated) == (4, True)
    assert 0 < status.output_size < 1_000_000
    assert answer.stdout == bytes(status.output_size)
