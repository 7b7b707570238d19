"""How a task ended is exact; limits and cancel hold on the host."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.peers.eventually import eventually
from tests.unit.journal.host import Host, alive, command_line, framed, last_status
from twinline_journal import Reason, State, cancel_command, run_command
from twinline_journal.remote import runner

BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
STUBBORN = "trap '' TERM; sleep 300 & echo $$ $!; while :; do wait; done"


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process in a group of its own that is no task's."""
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as process:
        yield process.pid
        process.kill()


async def test_an_exit_status_is_told_as_it_is(host: Host) -> None:
    statuses = [0, 1, 2, 127, 137, 143, 255]
    outcomes = await host.run_all([f"exit {status}" for status in statuses])
    assert [(ended.reason, ended.exit_status, ended.signal) for ended in outcomes] == [
        ("exited", status, None) for status in statuses
    ]
    assert [host.told(ended.task_id) for ended in outcomes] == outcomes


async def test_a_signal_is_not_an_exit_status(host: Host) -> None:
    signals = [1, 2, 6, 9, 11, 13, 15]
    outcomes = await host.run_all([f"ulimit -c 0; kill -{number} $$" for number in signals])
    assert [(ended.reason, ended.exit_status, ended.signal) for ended in outcomes] == [
        ("signaled", 128 + number, number) for number in signals
    ]
    assert [host.told(ended.task_id) for ended in outcomes] == outcomes


def test_a_task_that_starts_or_ends_is_never_taken_for_interrupted(host: Host) -> None:
    for number in range(10):
        states = [host.start("true", f"task-{number}").state]
        while states[-1] is not State.FINISHED:
            states.append(host.journal.status(f"task-{number}").state)
        assert State.INTERRUPTED not in states


def test_a_file_is_not_strange_for_appearing_while_the_runner_looks(host: Host) -> None:
    functions, _, _ = runner().decode().partition("\nfind_umask() {")
    looks = "for n in $(seq 400); do until plain $n; do ! strange $n || exit 1; done; done"
    host.root.mkdir()
    with subprocess.Popen([host.folder / "bin/sh", "-c", f"{functions}\n{looks}"], cwd=host.root) as looker:
        for number in range(1, 401):
            (host.root / str(number)).touch()
            time.sleep(0.0005)
        assert looker.wait(20) == 0


async def test_started_and_ended_are_the_hosts_times(host: Host) -> None:
    ended = await host.run("sleep 0.5")
    assert ended.started
    assert ended.ended
    assert 0 <= ended.ended - ended.started < 10


async def test_a_limit_ends_the_whole_group_even_when_it_ignores_term(host: Host) -> None:
    ended = await host.run(STUBBORN, timeout=0.3, kill_after=0.3)
    assert (ended.reason, ended.signal) == ("timed_out", 9)
    assert [pid for pid in host.output().split() if alive(int(pid))] == []
    await eventually(lambda: host.processes() == [])


async def test_a_limit_lets_a_script_clean_up(host: Host) -> None:
    ended = await host.run("trap 'echo cleaned; exit 3' TERM; sleep 300 & wait", timeout=0.3)
    assert (ended.reason, ended.exit_status, host.output()) == ("timed_out", 3, b"cleaned\n")


async def test_a_child_that_ignores_term_does_not_outlive_a_script_that_obeys(host: Host) -> None:
    ended = await host.run("(trap '' TERM; echo on; exec sleep 300) & wait", timeout=0.5, kill_after=0.3)
    assert ended.reason == "timed_out"
    await eventually(lambda: host.processes() == [])


async def test_cancel_ends_the_whole_group_even_when_it_ignores_term(host: Host) -> None:
    host.start(STUBBORN, kill_after=0.3)
    await host.said(b"\n")
    host.journal.cancel("task-1")
    host.journal.cancel("task-1")
    assert (await host.ended()).reason == "canceled"
    assert [pid for pid in host.output().split() if alive(int(pid))] == []


async def test_cancel_by_ssh_answers_at_once_and_the_task_ends(host: Host) -> None:
    host.start("sleep 300", kill_after=60)
    await eventually(lambda: host.told().state is State.RUNNING)
    assert host.remote(cancel_command("task-1")).returncode == 0
    assert (await host.ended()).signal == signal.SIGTERM
    assert host.told().reason == "canceled"


def test_a_task_canceled_before_it_came_never_starts(host: Host) -> None:
    canceled = last_status(host.remote(cancel_command("task-1")).stderr)
    assert (canceled.state, canceled.reason, canceled.exit_status) == (State.FINISHED, "canceled", None)
    assert host.start("echo ran") == canceled == host.told()
    assert host.remote(run_command("task-1"), framed("echo ran")).stdout == b""


async def test_a_task_canceled_while_it_starts_never_hangs_nor_runs_twice(host: Host) -> None:
    for number in range(5):
        host.start(f"echo ran >>'{host.folder}/runs'; sleep 300", f"task-{number}", kill_after=1)
        host.journal.cancel(f"task-{number}")
        assert (await host.ended(f"task-{number}")).reason == "canceled"
    await eventually(lambda: host.processes() == [])


@pytest.mark.parametrize("reason", [Reason.CANCELED, Reason.TIMED_OUT])
@pytest.mark.parametrize("slow", ["id", "date", "setsid"])
async def test_a_host_that_is_slow_to_start_a_script_ends_it_too(host: Host, slow: str, reason: Reason) -> None:
    tool = host.folder / "bin" / slow
    tool.write_text(f'#!/bin/sh\ncase $* in *supervise*) ;; *) sleep 1.5 ;; esac\nexec {shutil.which(slow)} "$@"\n')
    tool.chmod(0o700)
    host.environ["LOGNAME"] = ""
    host.start("sleep 20", timeout=0.5 if reason is Reason.TIMED_OUT else 60)
    if reason is Reason.CANCELED:
        await eventually(lambda: host.mark("group" if slow == "setsid" else "supervisor") > 0)
        host.journal.cancel("task-1")
    ended = await host.ended()
    assert (ended.reason, ended.signal) == (reason, signal.SIGTERM if slow == "setsid" else None)
    assert slow == "setsid" or (ended.exit_status, ended.started) == (None, None)  # for it never ran
    await eventually(lambda: host.processes() == [])


async def test_a_cancel_whose_first_word_a_full_disk_did_not_take_is_one(host: Host) -> None:
    host.start("echo up; sleep 300")
    await host.said(b"up")
    host.file("stop").touch()
    host.journal.cancel("task-1")
    assert (await host.ended()).reason == Reason.CANCELED


async def test_cancel_of_an_ended_task_changes_nothing(host: Host) -> None:
    ended = await host.run("true")
    host.journal.cancel("task-1")
    assert last_status(host.remote(cancel_command("task-1")).stderr) == ended


async def test_a_script_goes_on_when_its_supervisor_is_killed(host: Host) -> None:
    host.start(f"echo before; until [ -e '{host.folder}/go' ]; do sleep 0.05; done; echo after")
    await host.said(b"before")
    os.kill(host.supervisor(), signal.SIGKILL)
    await eventually(lambda: not alive(host.supervisor()))
    assert host.told().state is State.RUNNING
    (host.folder / "go").touch()
    ended = await host.ended()
    assert (ended.state, ended.reason, host.output()) == (State.INTERRUPTED, Reason.PROCESS_GONE, b"before\nafter\n")
    assert host.start("echo again") == host.told()
    await eventually(lambda: host.processes() == [])


async def test_a_limit_holds_when_the_supervisor_was_killed(host: Host) -> None:
    host.start(STUBBORN, timeout=1, kill_after=0.3)
    await host.said(b"\n")
    os.kill(host.supervisor(), signal.SIGKILL)
    assert (await host.ended()).state is State.INTERRUPTED
    await eventually(lambda: host.processes() == [])


async def test_cancel_holds_when_everybody_else_was_killed(host: Host) -> None:
    host.start("echo here; sleep 300")
    await host.said(b"here")
    group = host.mark("group")
    for pid in host.processes():
        if os.getpgid(pid) != group:
            os.kill(pid, signal.SIGKILL)
    host.journal.cancel("task-1")
    assert (await host.ended()).state is State.INTERRUPTED
    await eventually(lambda: host.processes() == [])


async def test_a_reboot_interrupts(host: Host) -> None:
    host.start("echo up; sleep 60")
    await host.said(b"up")
    text = host.file("pid").read_text().splitlines()
    host.file("pid").write_text("\n".join([text[0][:-8] + "00000000", *text[1:], ""]))
    assert (host.told().state, host.told().reason) == (State.INTERRUPTED, Reason.HOST_REBOOTED)
    assert host.start("echo again").state is State.INTERRUPTED


async def test_a_group_that_has_the_number_after_a_reboot_is_let_alone(host: Host, stranger: int) -> None:
    host.start("echo up; sleep 300", kill_after=0.3)
    await host.said(b"up")
    await eventually(lambda: all_killed(host))
    *marks, group = host.file("pid").read_text().splitlines()
    since = Path(f"/proc/{stranger}/stat").read_text().rpartition(")")[2].split()[19]
    group = " ".join(["group", str(stranger), since, *group.split()[3:]])  # one that was made as long after the boot
    host.file("pid").write_text("\n".join([*marks, group, ""]).replace(BOOT, "an-earlier-boot"))
    assert last_status(host.remote(cancel_command("task-1")).stderr).reason is Reason.HOST_REBOOTED
    await eventually(lambda: host.processes() == [])
    assert alive(stranger)


async def test_a_group_that_got_the_number_later_is_let_alone(host: Host, stranger: int) -> None:
    host.start("echo up; sleep 300", kill_after=0.3)
    await host.said(b"up")
    await eventually(lambda: all_killed(host))
    marks = host.file("pid").read_text().replace(f"group {host.mark('group')} ", f"group {stranger} ")
    host.file("pid").write_text(marks)
    assert last_status(host.remote(cancel_command("task-1")).stderr).reason is Reason.PROCESS_GONE
    await eventually(lambda: host.processes() == [])
    assert alive(stranger)


def all_killed(host: Host) -> bool:
    """Kill what there is; whether there was nothing, as some are about to start others."""
    found = host.processes()
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return not found


def held_up(host: Host, tool: str, condition: str, *, afterwards: bool = False) -> None:
    """Let calls of a tool whose words meet the condition make a file `waits`, and wait for one, `go`."""
    waits = f"touch '{host.folder}/waits'; until [ -e '{host.folder}/go' ]; do sleep 0.05; done"
    work = f'{shutil.which(tool)} "$@"; status=$?'
    steps = [work, waits] if afterwards else [waits, work]
    wrapper = host.folder / "bin" / tool
    wrapper.write_text(f"#!/bin/sh\ncase $* in {condition}) {'; '.join(steps)} ;; *) {work} ;; esac\nexit $status\n")
    wrapper.chmod(0o700)


async def test_what_a_script_left_behind_is_let_alone_by_a_cancel_after_its_end(host: Host) -> None:
    held_up(host, "dd", "*of=exit*")
    host.start("sleep 300 & echo $!", kill_after=0.3)
    await eventually((host.folder / "waits").exists)
    assert last_status(host.remote(cancel_command("task-1")).stderr).state is State.RUNNING
    await eventually(lambda: not any(b"\0end\0" in command_line(pid) for pid in host.processes()))
    (host.folder / "go").touch()
    assert ((await host.ended()).reason, alive(int(host.output()))) == (Reason.EXITED, True)


async def test_a_cancel_at_a_scripts_end_lets_what_it_left_behind_clean_up(host: Host) -> None:
    held_up(host, "awk", "*", afterwards=True)
    cleaned = host.folder / "cleaned"
    host.start(f"(trap 'echo >\"{cleaned}\"; exit' TERM; while :; do sleep 0.05; done) & echo on", kill_after=5)
    await host.said(b"on")
    await eventually((host.folder / "waits").exists)
    host.journal.cancel("task-1")
    (host.folder / "go").touch()
    assert ((await host.ended()).reason, cleaned.exists()) == (Reason.CANCELED, True)
    await eventually(lambda: host.processes() == [])


async def test_a_script_whose_first_thread_has_ended_is_ended_too(host: Host) -> None:
    threads = """
        import ctypes, threading, time
        threading.Thread(target=time.sleep, args=(300,)).start()
        print("on", flush=True)
        ctypes.CDLL(None).syscall(EXIT, 0)
    """
    number = {"x86_64": 60, "aarch64": 93}[os.uname().machine]
    source = textwrap.dedent(threads).replace("EXIT", str(number))
    host.start(f"#!{sys.executable}\n{source}", kill_after=0.3)
    await host.said(b"on")
    await eventually(lambda: state_of(host.mark("group")) == "Z")
    assert host.told().state is State.RUNNING
    host.journal.cancel("task-1")
    assert (await host.ended()).reason == Reason.CANCELED
    await eventually(lambda: host.processes() == [])


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_a_task_accepted_before_a_reboot_is_not_started_after_it(host: Host) -> None:
    host.file("").mkdir(parents=True)
    host.file("task").write_text("task-1 0 - 1000 1000 an-earlier-boot\n")
    assert host.start("echo ran").reason == host.told().reason == Reason.HOST_REBOOTED
    assert not host.file("output").exists()


async def test_a_start_that_left_a_mark_and_no_process_is_unknown(host: Host) -> None:
    await host.run("true")
    await eventually(lambda: host.processes() == [])  # its supervisor tidies up after the end
    host.file("exit").unlink()
    host.file("pid").write_text(host.file("pid").read_text().splitlines()[0] + "\n")
    assert (host.told().state, host.told().reason) == (State.INTERRUPTED, Reason.START_UNKNOWN)


async def test_a_number_that_now_is_another_process_is_not_the_task(host: Host) -> None:
    await host.run("true")
    host.file("exit").unlink()
    marks = [line.split() for line in host.file("pid").read_text().splitlines()]
    assert [mark[0] for mark in marks] == ["supervisor", "watchdog", "group"]
    host.file("pid").write_text("".join(f"{who} {os.getpid()} {' '.join(rest)}\n" for who, _, *rest in marks))
    assert host.told().reason == Reason.PROCESS_GONE
    host.journal.cancel("task-1")  # and this process is still here
