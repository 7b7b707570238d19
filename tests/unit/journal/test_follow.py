"""Over SSH the output comes by offset, with an exact end, and only as long as somebody reads it."""

import shutil
from pathlib import Path

import pytest

from tests.peers.eventually import eventually
from tests.unit.journal.conftest import SHELLS
from tests.unit.journal.host import Host, framed, last_status
from twinline_journal import State, follow_command, forget_command, parse_status, run_command

LOGIN_SHELLS = [shell for shell in ("sh", "bash", "dash", "zsh", "tcsh", "fish") if shutil.which(shell)]


def test_a_run_starts_follows_and_tells_the_end(host: Host) -> None:
    answer = host.remote(
        run_command("task-1"), framed("echo one; sleep 0.2; echo two >&2; sleep 0.2; printf three; exit 4")
    )
    assert answer.stdout == b"one\ntwo\nthree"
    ended = last_status(answer.stderr)
    assert (ended.state, ended.exit_status, ended.output_size) == (State.FINISHED, 4, len(answer.stdout))
    assert ended == host.told()


async def test_following_from_any_offset_gives_the_rest(host: Host) -> None:
    await host.run("seq 1 2000")
    output = host.output()
    for offset in (0, 1, 4095, 4096, len(output) - 1, len(output), len(output) + 5):
        assert host.remote(follow_command("task-1", offset)).stdout == output[offset:]


def test_five_mebibytes_followed_while_they_are_written_come_equal(host: Host) -> None:
    script = "i=0; while [ $i -lt 50 ]; do head -c 104857 /dev/urandom; i=$((i+1)); done"
    answer = host.remote(run_command("task-1"), framed(script))
    assert answer.stdout == host.output()
    assert len(answer.stdout) == 50 * 104857


def test_the_frame_is_read_to_its_end_and_no_further(host: Host) -> None:
    with host.popen(run_command("task-1")) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(framed("echo hello; cat"))
        process.stdin.flush()
        assert process.stdout.read() == b"hello\n"
        assert last_status(process.stderr.read()).exit_status == 0


async def test_a_cut_follower_is_replaced_by_one_that_goes_on_at_its_offset(host: Host) -> None:
    script = f"echo one; until [ -e '{host.folder}/go' ]; do sleep 0.05; done; echo two"
    with host.popen(run_command("task-1")) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(framed(script))
        process.stdin.flush()
        assert process.stdout.readline() == b"one\n"
        process.kill()
    assert host.told().state is State.RUNNING
    (host.folder / "go").touch()
    assert host.remote(follow_command("task-1", 4)).stdout == b"two\n"


async def test_a_follower_ends_with_the_next_output_when_its_reader_has_gone(host: Host) -> None:
    host.start(f"echo one; until [ -e '{host.folder}/go' ]; do sleep 0.05; done; echo two; sleep 60")
    process = host.popen(follow_command("task-1", 0))
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline() == b"one\n"
    process.stdout.close()
    (host.folder / "go").touch()
    await eventually(lambda: process.poll() is not None)
    process.stderr.close()
    assert host.told().state is State.RUNNING


async def test_a_follower_of_a_quiet_script_ends_when_its_reader_has_gone(tmp_path: Path) -> None:
    hosts = [Host(tmp_path / shell, str(shutil.which(shell))) for shell in SHELLS]
    for host in hosts:
        host.start("echo one; sleep 60")
    followers = [host.popen(follow_command("task-1", 0)) for host in hosts]
    for process in followers:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"one\n"
        process.stdout.close()
        process.stderr.close()
    await eventually(lambda: all(process.poll() is not None for process in followers), within=20)
    assert {host.told().state for host in hosts} == {State.RUNNING}
    for host in hosts:
        host.clean()


def test_following_never_starts_a_task(host: Host) -> None:
    answer = host.remote(follow_command("task-1", 0), framed("echo ran"))
    assert (answer.stdout, last_status(answer.stderr).state) == (b"", State.ABSENT)


def test_a_marker_tells_output_from_what_a_login_shell_says(host: Host) -> None:
    command = "echo welcome; " + run_command("task-1", marker="twinline-7")
    assert host.remote(command, framed("echo hello")).stdout == b"welcome\ntwinline-7hello\n"


@pytest.mark.parametrize("login", LOGIN_SHELLS)
def test_any_login_shell_will_do(login: str, tmp_path: Path) -> None:
    host = Host(tmp_path, str(shutil.which("dash")))
    assert host.remote(run_command("task-1"), framed("echo hello"), shell=login).stdout == b"hello\n"
    assert host.remote(forget_command(["task-1", "task-2"]), shell=login).returncode == 0
    assert host.file("forgotten").exists()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"Welcome to Ubuntu",
        b"twinline-status id=task-1",
        b"twinline-status id=../x state=running",
        b"twinline: no awk",
    ],
)
def test_noise_is_no_status(line: bytes) -> None:
    assert parse_status(line) is None


async def test_a_follower_is_told_at_once_when_the_start_comes(host: Host) -> None:
    folder = host.file("")
    folder.mkdir(parents=True)
    with host.popen(follow_command("task-1", 0)) as process:
        assert process.stderr
        host.start("sleep 1")
        states = [status.state for line in process.stderr if (status := parse_status(line))]
    assert states == [State.RUNNING, State.FINISHED]
