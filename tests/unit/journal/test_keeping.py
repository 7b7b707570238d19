"""Journals are kept until they are forgotten, then a while longer; never is a live one dropped."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.peers.eventually import eventually
from tests.unit.journal.host import Host, framed, last_status, spec
from twinline_journal import Journal, JournalError, Reason, State, follow_command, forget_command, run_command

DAY = 86_400.0
SIZE = 100_000
BIG = f"head -c {SIZE} /dev/zero"


def age(host: Host, task_id: str, seconds: float) -> None:
    then = time.time() - seconds
    for name in ("exit", "pid", "task", "forgotten", ""):
        if host.file(name, task_id).exists():
            os.utime(host.file(name, task_id), (then, then))


async def test_a_forgotten_task_still_refuses_a_second_start(host: Host) -> None:
    await host.run("echo one")
    host.journal.forget("task-1")
    assert host.start("echo again").output_size == 4


def test_a_live_task_cannot_be_forgotten(host: Host) -> None:
    host.start("sleep 60")
    with pytest.raises(JournalError, match="cancel it first"):
        host.journal.forget("task-1")
    answer = host.remote(forget_command(["task-1", "task-9"]))
    assert last_status(answer.stderr).task_id == "task-1"
    assert not host.file("forgotten").exists()


def test_an_unknown_task_is_forgotten_already(host: Host) -> None:
    host.journal.forget("task-1")
    assert host.kept() == []
    assert host.remote(forget_command(["task-1"])).returncode == 0


@pytest.mark.parametrize("line", ["agent", "ssh"])
async def test_old_ended_tasks_are_swept_and_live_ones_never(host: Host, line: str) -> None:
    for number in (1, 2):
        await host.run("true", f"task-{number}")
    host.start("sleep 60", "task-3")
    await eventually(lambda: host.journal.status("task-3").state is State.RUNNING)
    for task_id, days in (("task-1", 32), ("task-2", 8), ("task-3", 32)):
        age(host, task_id, days * DAY)
    leftover = host.root / "dropped-task-9.1"
    leftover.mkdir()
    if line == "agent":
        host.journal.sweep(max_bytes=0)
    else:
        host.remote(forget_command([]))
    assert host.kept() == ["task-2", "task-3"]
    assert not leftover.exists()


async def test_a_full_journal_drops_the_output_of_the_forgotten_oldest_first(host: Host) -> None:
    for number in (1, 2, 3):
        await host.run_through(BIG, f"task-{number}")
    for number in (2, 3):
        host.journal.forget(f"task-{number}")
        age(host, f"task-{number}", 100 - number)
    host.journal.sweep(max_bytes=300_000)
    assert [number for number in (1, 2, 3) if host.file("output", f"task-{number}").exists()] == [1, 3]
    assert host.kept() == ["task-1", "task-2", "task-3"]
    host.journal.sweep(max_bytes=0)
    assert host.output("task-1") == bytes(SIZE)  # nobody said that it is stored


@pytest.mark.parametrize("line", ["agent", "ssh"])
async def test_a_task_whose_output_was_dropped_runs_no_second_time_and_is_told_as_it_ended(
    host: Host, line: str
) -> None:
    script = f"echo x >> '{host.folder}/ran'; {BIG}; exit 3"
    before = await host.run_through(script)
    host.journal.forget("task-1")
    host.journal.sweep(max_bytes=0)
    if line == "agent":
        assert host.start(script) == before
    else:
        assert last_status(host.remote(run_command("task-1"), framed(script)).stderr) == before
    assert (host.told(), (host.folder / "ran").read_text()) == (before, "x\n")
    assert sorted(path.name for path in host.file("").iterdir()) == ["exit", "forgotten", "pid", "task"]


@pytest.mark.parametrize("offset", [0, 10, SIZE])
@pytest.mark.parametrize("verb", ["run", "follow"])
async def test_whoever_follows_dropped_output_is_told_the_end_and_that_more_was_promised(
    host: Host, verb: str, offset: int
) -> None:
    await host.run(BIG)
    host.journal.forget("task-1")
    host.journal.sweep(max_bytes=0)
    command = (run_command if verb == "run" else follow_command)("task-1", offset, marker="twinline-7")
    answer = host.remote(command, framed(BIG))
    assert answer.stdout == b"twinline-7"
    end = last_status(answer.stderr)
    assert (end.state, end.exit_status, end.output_size) == (State.FINISHED, 0, SIZE)
    with pytest.raises(FileNotFoundError):
        host.output()


async def test_of_a_task_whose_end_is_not_known_the_output_stays_for_nothing_else_tells_how_much_there_was(
    host: Host,
) -> None:
    host.start(f"{BIG}; dd if=/dev/zero of=left bs={SIZE} count=1; sleep 60")
    await eventually(lambda: host.file("work").joinpath("left").exists())
    await host.said(bytes(SIZE))
    for who in ("supervisor", "watchdog", "group"):
        os.kill(host.mark(who), signal.SIGKILL)
    before = await host.ended()
    assert before.state is State.INTERRUPTED
    host.journal.forget("task-1")
    host.journal.sweep(max_bytes=0)
    assert host.told() == before
    assert (len(host.output()) >= SIZE, host.file("work").exists(), host.file("script").exists()) == (
        True,
        False,
        False,
    )


@pytest.mark.parametrize("name", ["exit", "pid", "task", "output"])
@pytest.mark.parametrize("stranger", ["mkfifo {}", "ln -s /dev/zero {}", "mkdir {}"])
async def test_what_a_script_puts_in_the_place_of_a_file_holds_nobody_up(host: Host, name: str, stranger: str) -> None:
    host.start(f"cd ..; rm -f {name}; {stranger.format(name)}; touch ready; sleep 60")
    await eventually(lambda: host.file("ready").exists())

    assert host.told().state in (State.RUNNING, State.INTERRUPTED)
    assert (await host.run("echo other", "task-2")).output_size == 6


async def test_a_host_reached_by_ssh_sweeps_by_itself_once_an_hour(host: Host) -> None:
    for number in (1, 2):
        await host.run("true", f"task-{number}")
        host.remote(forget_command([f"task-{number}"]))
    age(host, "task-1", 9 * DAY)
    host.remote(forget_command([]))
    assert (host.told("task-1").state, host.told("task-2").state) == (State.FINISHED, State.FINISHED)
    boot, clock = (host.root / "swept").read_text().split()
    for earlier in (f"{boot} {int(clock) - 360_000}\n", f"another-boot {clock}\n", f"{boot} abc\n", f"{boot}"):
        await host.run("true", "task-1")
        host.remote(forget_command(["task-1"]))
        age(host, "task-1", 9 * DAY)
        (host.root / "swept").write_text(earlier)
        host.remote(forget_command([]))
        assert (host.told("task-1").state, host.told("task-2").state) == (State.ABSENT, State.FINISHED)


@pytest.mark.parametrize("garbage", [b"reason\xff= status\n", b"done\n", b"reason=exited status=x size=\n"])
async def test_a_record_that_a_script_wrote_is_no_end_and_hides_no_other_task(host: Host, garbage: bytes) -> None:
    for number in (1, 2):
        await host.run("true", f"task-{number}")
    host.file("exit").write_bytes(garbage)
    host.file("", "task-3").symlink_to(host.root / "tasks" / "task-3")
    told = host.told()
    assert (told.state, told.reason) == (State.INTERRUPTED, Reason.JOURNAL_UNREADABLE)
    age(host, "task-1", 32 * DAY)
    host.journal.sweep()
    assert host.told().state is State.ABSENT


def test_a_runner_that_hangs_is_given_up(tmp_path: Path) -> None:
    hanging = tmp_path / "hanging"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o700)
    with pytest.raises(JournalError, match="did not answer"):
        Journal(tmp_path / "journal", shell=str(hanging), patience=0.2).start(spec("true"))


async def test_a_task_whose_journal_was_removed_leaves_nothing_behind(host: Host) -> None:
    host.start(f"echo here; until [ -e '{host.folder}/go' ]; do sleep 0.05; done")
    await host.said(b"here")
    shutil.rmtree(host.root)
    (host.folder / "go").touch()
    await eventually(lambda: host.processes() == [], within=20)
