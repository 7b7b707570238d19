"""Hosts that lack tools."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.eventually import eventually
from tests.unit.journal.host import Host, alive, last_status
from twinline_journal import JournalError, State, TaskSpec, frame, run_command


@pytest.fixture(params=["dash", "bash", "busybox"])
def bare(request: pytest.FixtureRequest, tmp_path: Path, tools: Path) -> Iterator[Host]:
    """A host with no tools but those of the `tools` folder."""
    host = Host(tmp_path / "bare", str(shutil.which(request.param)), tools=tools)
    yield host
    host.clean()


@pytest.fixture
def alpine(tmp_path: Path) -> Iterator[Host]:
    """A host where every tool is busybox."""
    applets = tmp_path / "applets"
    applets.mkdir()
    busybox = str(shutil.which("busybox"))
    subprocess.run([busybox, "--install", "-s", str(applets)], check=True)
    host = Host(tmp_path / "alpine", busybox, tools=applets)
    yield host
    host.clean()


async def test_perl_stands_in_for_setsid(bare: Host, tools: Path) -> None:
    (tools / "setsid").unlink()
    bare.start("trap '' TERM; sleep 300 & echo $$ $!; while :; do wait; done", kill_after=0.3)
    await bare.said(b"\n")
    assert os.getsid(bare.supervisor()) == bare.supervisor() != os.getsid(0)
    bare.journal.cancel("task-1")
    assert (await bare.ended()).reason == "canceled"
    assert [pid for pid in bare.output().split() if alive(int(pid))] == []


async def test_perl_tells_of_an_interpreter_that_cannot_be_executed(bare: Host, tools: Path) -> None:
    (tools / "setsid").unlink()
    broken = bare.folder / "broken"
    shutil.copy(str(shutil.which("cat")), broken)
    text = broken.read_bytes()
    broken.write_bytes(text.replace(b"/lib64/ld-linux", b"/nowhere-linux"))
    values = {"LC_ALL": "xx_XX", "PERL5OPT": "-Mno::such"}
    bare.journal.start(TaskSpec("task-1", f"#!{broken}\n".encode(), values))
    assert (await bare.ended()).exit_status == 127


async def test_perl_heeds_no_value_of_a_script(bare: Host, tools: Path) -> None:
    (tools / "setsid").unlink()
    values = {"PERL5OPT": "-Mno::such"}
    bare.journal.start(TaskSpec("task-1", b"#!/bin/sh\necho $PERL5OPT $LANG", values))
    assert (await bare.ended()).exit_status == 0
    assert bare.output() == b"-Mno::such C.UTF-8\n"


@pytest.mark.parametrize("missing", [("setsid", "perl"), ("awk",), ("env",), ("cat",), ("date",)])
def test_a_host_that_cannot_keep_the_promise_refuses_before_the_start(
    bare: Host, tools: Path, missing: tuple[str, ...]
) -> None:
    for tool in missing:
        (tools / tool).unlink()
    with pytest.raises(JournalError, match="install"):
        bare.start("true")
    assert bare.kept() == []


async def test_a_script_that_could_not_be_started_has_no_times(bare: Host, tools: Path) -> None:
    awk = (tools / "awk").readlink()
    (tools / "awk").unlink()
    (tools / "awk").write_text(f'#!/bin/sh\nrm -f pid; mkdir pid; exec {awk} "$@"\n')
    (tools / "awk").chmod(0o755)
    bare.start("echo ran")
    await eventually(lambda: bare.journal.status("task-1").state is State.FINISHED)
    ended = bare.told()
    assert (ended.exit_status, ended.started, ended.ended, bare.output()) == (126, None, None, b"")


@pytest.mark.parametrize("bare", ["bash"], indirect=True)
async def test_a_shell_that_keeps_here_documents_in_files_has_pipes_by_mkfifo(bare: Host, tools: Path) -> None:
    bare.environ["BASH_COMPAT"] = "5.0"
    answer = bare.remote(run_command("task-1"), frame(TaskSpec("task-1", b"echo $A; sleep 1; echo two", {"A": "one"})))
    assert (answer.stdout, last_status(answer.stderr).exit_status) == (b"one\ntwo\n", 0)
    assert not list(bare.file("").glob("pipe*"))
    (tools / "mkfifo").unlink()
    with pytest.raises(JournalError, match="cannot make a pipe"):
        bare.start("true", "task-2")
    assert bare.kept() == ["task-1"]


@pytest.mark.parametrize("left", [b"", b"# half of a runner\n"])
async def test_a_runner_that_a_power_cut_left_unwritten_is_written_again(host: Host, left: bytes) -> None:
    await host.run("true")
    (runner,) = host.root.glob("runner-*")
    runner.write_bytes(left)
    assert (await host.run("echo here", "task-2")).exit_status == 0


async def test_what_must_outlive_a_power_cut_is_synced_to_the_disk(bare: Host, tools: Path) -> None:
    calls = noted(tools, "dd")
    await bare.run("true")
    assert "dd of=task conv=fsync" in calls.read_text()
    assert "dd of=exit conv=fsync" in calls.read_text()


def test_a_full_journal_of_many_tasks_is_made_smaller_by_few_processes(bare: Host, tools: Path) -> None:
    for number in range(120):
        bare.file("", f"task-{number}").mkdir(parents=True)
        for name in ("task", "exit", "forgotten", "script", "output"):
            bare.file(name, f"task-{number}").write_bytes(bytes(5000))
    calls = noted(tools, "du", "find", "ls", "mv", "rm")
    bare.journal.sweep(max_bytes=0)
    left = {path.name for path in bare.root.glob("tasks/*/*")}
    assert (len(bare.kept()), left) == (120, {"task", "exit", "forgotten"})
    assert len(calls.read_text().splitlines()) < 15


def noted(tools: Path, *names: str) -> Path:
    """Let each call of these tools leave a line in a file."""
    calls = tools / "calls"
    for name in names:
        tool = tools / name
        real = tool.readlink()
        tool.unlink()
        tool.write_text(f'#!/bin/sh\necho "{name} $*" >>\'{calls}\'\nexec {real} "$@"\n')
        tool.chmod(0o755)
    return calls


async def test_busybox_alone_tells_signals_too(alpine: Host) -> None:
    outcomes = await alpine.run_all(["exit 0", "exit 1", "exit 137", "kill -9 $$", "kill $$", "kill -INT $$"])
    told = [(ended.exit_status, ended.signal) for ended in outcomes]
    assert told == [(0, None), (1, None), (137, None), (137, 9), (143, 15), (130, 2)]
    assert [alpine.told(ended.task_id) for ended in outcomes] == outcomes


async def test_busybox_alone_keeps_limits_and_output(alpine: Host) -> None:
    ended = await alpine.run("head -c 300000 /dev/zero; sleep 300", timeout=1.5, max_output=1000)
    assert (ended.reason, ended.output_size, ended.truncated) == ("timed_out", 1000, True)
    await eventually(lambda: alpine.processes() == [])


async def test_busybox_alone_drops_what_a_full_journal_can_spare(alpine: Host) -> None:
    await dropped_for_room(alpine)


async def dropped_for_room(host: Host) -> None:
    """Let two tasks be forgotten, of which only the older one has to make room."""
    for age, task_id in ((100, "task-old"), (10, "task-new")):
        await host.run_through("head -c 100000 /dev/zero", task_id)
        host.journal.forget(task_id)
        then = time.time() - age
        os.utime(host.file("", task_id), (then, then))
    host.journal.sweep(max_bytes=200_000)
    left = [{path.name for path in host.file("", task_id).iterdir()} for task_id in ("task-old", "task-new")]
    kept = {"exit", "forgotten", "pid", "task"}
    assert (left[0], left[1] - {"work"}) == (kept, kept | {"output", "script"})


async def test_an_awk_that_is_not_what_it_is_called_tells_signals_too(bare: Host, tools: Path) -> None:
    gawk = tools / "gawk"
    shutil.copy(str(shutil.which("busybox")), gawk)
    (tools / "awk").unlink()
    (tools / "awk").write_text(f'#!/bin/bash\nexec -a awk {gawk} "$@"\n')
    (tools / "awk").chmod(0o755)
    assert [(ended.exit_status, ended.signal) for ended in await bare.run_all(["kill -9 $$", "exit 137"])] == [
        (137, 9),
        (137, None),
    ]


@pytest.mark.parametrize("awk", [awk for awk in ("mawk", "gawk", "original-awk") if shutil.which(awk)])
async def test_any_awk_tells_signals_and_makes_room(bare: Host, tools: Path, awk: str) -> None:
    (tools / "awk").unlink()
    (tools / "awk").symlink_to(str(shutil.which(awk)))
    bare.environ["POSIXLY_CORRECT"] = "1"  # gawk then gives the raw wait status
    outcomes = await bare.run_all(["kill -9 $$", "exit 137", "exit 0"])
    assert [(ended.exit_status, ended.signal) for ended in outcomes] == [(137, 9), (137, None), (0, None)]
    shutil.rmtree(bare.root / "tasks")
    await dropped_for_room(bare)
