"""Values of the environment reach the script, and nobody else."""

import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from tests.peers.eventually import eventually
from tests.unit.journal.host import Host, command_line, framed, pids
from twinline_journal import State, TaskSpec, frame, run_command
from twinline_journal.spec import SHORT

VALUES = [
    "plain",
    "",
    'it\'s "quoted" `pwd` $HOME $(pwd) \\n \\0101 !',
    "two\nlines\n\n",
    " blanks\tand tabs ",
    "naïve ☃ 日本",
    "\udcff\udc81 \x01\x7f\x88",
    "%s %b -n",
]


async def test_values_come_as_they_are(host: Host) -> None:
    names = [f"SECRET_{number}" for number in range(len(VALUES))]
    script = "".join(f'printf "%s|" "${name}"\n' for name in names)
    host.journal.start(TaskSpec("task-1", script.encode(), dict(zip(names, VALUES, strict=True))))
    await host.ended()
    assert host.output() == "".join(f"{value}|" for value in VALUES).encode("utf-8", "surrogateescape")


async def test_even_path_may_be_set(host: Host) -> None:
    host.journal.start(TaskSpec("task-1", b"#!/bin/sh\necho $PATH $id", {"PATH": "/nowhere", "id": "mine", "IFS": "/"}))
    assert (await host.ended()).exit_status == 0
    assert host.output() == b"/nowhere mine\n"


async def test_values_are_in_no_command_line_and_soon_in_no_file(host: Host) -> None:
    seen: list[bytes] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.extend(line for pid in pids() if b"hush-hush" in (line := command_line(pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    task = TaskSpec("task-1", b"ls -A ..; sleep 0.5", {"SECRET": "hush-hush"})
    answer = host.remote(run_command("task-1"), frame(task))
    done.set()
    watcher.join()
    assert seen == []
    assert sorted(answer.stdout.split()) == [b"output", b"pid", b"script", b"task", b"work"]
    assert [path for path in host.root.rglob("*") if path.is_file() and b"hush-hush" in path.read_bytes()] == []


async def test_files_are_for_the_owner_alone_from_the_start(host: Host) -> None:
    host.start("sleep 60")
    await eventually(lambda: host.file("output").exists())
    modes = {path: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in [host.root, *host.root.rglob("*")]}
    assert {path: mode for path, mode in modes.items() if mode} == {}


async def test_the_runners_own_variables_stay_out(host: Host) -> None:
    await host.run("/usr/bin/env")
    assert b"TWINLINE" not in host.output()


def test_values_stay_out_of_a_specs_text() -> None:
    assert "hush" not in repr(TaskSpec("task-1", b"", {"SECRET": "hush"}))


async def test_a_login_that_has_variables_of_our_names_spreads_no_values(host: Host) -> None:
    host.environ |= {"env": "prod", "text": "prod", "TASK": "task-1"}
    task = TaskSpec("task-1", b"sleep 60", {"SECRET": "hush-hush"})
    with host.popen(run_command("task-1")) as follower:
        assert follower.stdin
        follower.stdin.write(frame(task))
        follower.stdin.close()
        await eventually(lambda: host.told().state is State.RUNNING)
        group = host.mark("group")
        others = [pid for pid in host.processes() if os.getpgid(pid) != group]
        assert len(others) > 3
        assert [pid for pid in others if b"hush-hush" in environment(pid)] == []


def environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


async def test_many_and_large_values_come_whole(host: Host) -> None:
    values = {f"LARGE_{number}": f"{number}:" + "x" * 100_000 for number in range(5)}
    script = "".join(f'printf %s "${name}" | cksum\n' for name in values)
    host.journal.start(TaskSpec("task-1", script.encode(), values))
    assert (await host.ended()).exit_status == 0
    sums = [subprocess.run("cksum", input=value.encode(), capture_output=True, check=True) for value in values.values()]
    assert host.output() == b"".join(each.stdout for each in sums)


def test_a_frame_is_text_as_far_as_the_script_is_short() -> None:
    assert framed(b"\xff\n\x00").split(b"\n", 2)[1:] == [b"", rb"\0377\0012\0000" + b"\n"]
    script = b"\xff\n\x00" + bytes(SHORT)
    head, env, text = framed(script).split(b"\n", 2)
    assert head.startswith(b"twinline-task 1 task-1 ")
    assert (env, text) == (b"", script)


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A=B", "A B", "UID", "PPID", "Ä"])
def test_a_name_the_shell_cannot_set_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="choose another name"):
        TaskSpec("task-1", b"", {name: "x"})


@pytest.mark.parametrize("task_id", ["", "-a", "A", "a/b", "..", "a" * 65, "a\n"])
def test_a_bad_task_id_is_refused(task_id: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="task id"):
        TaskSpec(task_id, b"")
    with pytest.raises(ValueError, match="task id"):
        run_command(task_id)


@pytest.mark.parametrize("limits", [{"timeout": 0}, {"timeout": -1}, {"kill_after": -1}, {"max_output": -1}])
def test_a_limit_that_makes_no_sense_is_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"negative|not positive"):
        TaskSpec("task-1", b"", **limits)  # type: ignore[arg-type]  # numbers all


def test_a_nul_byte_in_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        TaskSpec("task-1", b"", {"A": "\0"})
