"""A task starts at most once, and its script gets what it should."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.peers.eventually import eventually
from tests.unit.journal.host import Host, framed, spec
from twinline_journal import JournalError, Reason, State, run_command, status_command, withdraw_command


async def test_a_start_answers_before_the_script_ends(host: Host) -> None:
    assert host.start("sleep 60").state in (State.ACCEPTED, State.RUNNING)
    await eventually(lambda: host.told().state is State.RUNNING)
    assert host.told().started is not None


async def test_a_second_start_runs_nothing_and_answers_the_present_status(host: Host) -> None:
    await host.run("echo once")
    assert host.start("echo twice") == host.told()
    assert host.output() == b"once\n"


async def test_of_twenty_racing_starts_one_runs(host: Host) -> None:
    work = spec(f"echo ran >>'{host.folder}/runs'")
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: host.journal.start(work), range(20)))
    await host.ended()
    assert (host.folder / "runs").read_text() == "ran\n"
    assert all(status.state is not State.ABSENT for status in statuses)


async def test_of_two_supervisors_that_were_held_up_one_starts_the_script(host: Host) -> None:
    gate, setsid = host.folder / "gate", host.folder / "bin" / "setsid"
    held = f"(until [ -e '{gate}' ]; do sleep 0.02; done; exec {shutil.which('setsid')} \"$@\") >/dev/null 2>&1 &"
    setsid.write_text(
        f"#!/bin/sh\ncase $* in *' supervise '*) {held} ;; *) exec {shutil.which('setsid')} \"$@\" ;; esac\n"
    )
    setsid.chmod(0o700)
    script = f"echo ran >>'{host.folder}/runs'"
    assert [host.start(script).state for _ in range(2)] == [State.ACCEPTED] * 2
    gate.touch()
    await host.ended()
    await eventually(lambda: host.processes() == [])
    assert (host.folder / "runs").read_text() == "ran\n"


@pytest.mark.parametrize("line", ["agent", "ssh"])
async def test_what_was_withdrawn_never_starts(host: Host, line: str) -> None:
    withdraw(host, line)
    told = host.told()
    assert (told.state, told.reason, told.started, told.exit_status) == (State.FINISHED, Reason.CANCELED, None, None)
    assert host.start(f"touch '{host.folder}/ran'") == told
    assert host.remote(run_command("task-1"), framed(f"touch '{host.folder}/ran'")).returncode == 0
    assert not (host.folder / "ran").exists()


@pytest.mark.parametrize("line", ["agent", "ssh"])
async def test_what_has_started_cannot_be_withdrawn(host: Host, line: str) -> None:
    host.start(f"until [ -e '{host.folder}/go' ]; do sleep 0.05; done; echo done")
    await eventually(lambda: host.told().state is State.RUNNING)
    withdraw(host, line)
    (host.folder / "go").touch()
    assert ((await host.ended()).reason, host.output()) == (Reason.EXITED, b"done\n")


def withdraw(host: Host, line: str) -> None:
    if line == "agent":
        host.journal.withdraw("task-1")
    else:
        assert host.remote(withdraw_command("task-1")).returncode == 0


async def test_two_deliveries_by_both_lines_run_once(host: Host) -> None:
    script = f"echo ran >>'{host.folder}/runs'"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: host.remote(run_command("task-1"), framed(script)), range(4)))
        list(pool.map(lambda _: host.start(script), range(4)))
    await host.ended()
    assert (host.folder / "runs").read_text() == "ran\n"


@pytest.mark.parametrize("length", [10, 10_000])
async def test_a_delivery_that_was_cut_leaves_the_next_one_free(host: Host, length: int) -> None:
    script = "echo " + "x" * length
    cut = host.remote(run_command("task-1"), framed(script)[:-5])
    assert b"came incomplete" in cut.stderr
    assert cut.returncode == 1
    assert host.told().state is State.ABSENT
    assert (await host.run(script)).exit_status == 0


async def test_a_delivery_that_is_cut_takes_nothing_from_the_script_of_a_later_one(host: Host) -> None:
    script = f"until [ -e '{host.folder}/go' ]; do sleep 0.05; done; echo here >file; cat file"
    with host.popen(run_command("task-1")) as first:
        assert first.stdin
        first.stdin.write(framed(script)[:-10])
        first.stdin.flush()
        await eventually(lambda: host.file("work").exists())
        with host.popen(run_command("task-1")) as second:
            assert second.stdin
            assert second.stdout
            second.stdin.write(framed(script))
            second.stdin.close()
            await eventually(lambda: host.told().state is State.RUNNING)
            first.stdin.close()
            assert first.wait(20) != 0
            (host.folder / "go").touch()
            assert second.stdout.read() == b"here\n"


async def test_a_delivery_whose_runner_was_killed_is_taken_over(host: Host) -> None:
    host.file("").mkdir(parents=True)
    host.file("script").write_text("echo half of a scr")
    assert host.told().state is State.ACCEPTED
    assert (await host.run("echo all", timeout=7, kill_after=3, max_output=99)).exit_status == 0
    assert host.output() == b"all\n"
    assert host.file("task").read_text().split()[2:5] == ["700", "300", "99"]


def test_a_bad_task_id_is_refused_on_the_host_too(host: Host) -> None:
    answer = host.remote(run_command("task-1").removesuffix("task-1 0") + "../task-1 0", framed("true", "task-2"))
    assert b"the frame is for" in answer.stderr
    answer = host.remote(status_command("task-1").removesuffix("task-1") + "../task-1")
    assert b"bad task id" in answer.stderr
    assert answer.returncode == 1


def test_a_frame_for_another_task_is_refused(host: Host) -> None:
    answer = host.remote(run_command("task-1"), framed("true", "task-2"))
    assert b"the frame is for task-2" in answer.stderr
    assert host.kept() == []


def test_what_is_no_frame_is_refused(host: Host) -> None:
    assert b"no task frame" in host.remote(run_command("task-1"), b"echo hello\n").stderr


def test_a_root_that_cannot_be_made_is_told(host: Host) -> None:
    host.root.mkdir(parents=True)
    (host.root / "tasks").write_text("in the way")
    with pytest.raises(JournalError, match="cannot make"):
        host.start("true")


async def test_output_is_stdout_and_stderr_in_order(host: Host) -> None:
    await host.run("echo one; echo two >&2; echo three; printf four >&2")
    assert host.output() == b"one\ntwo\nthree\nfour"


async def test_five_mebibytes_of_anything_come_through_equal(host: Host) -> None:
    data = os.urandom(5 << 20)
    (host.folder / "data").write_bytes(data)
    assert (await host.run(f"cat '{host.folder}/data'")).output_size == len(data)
    assert host.output() == data
    assert host.journal.read("task-1", 1_000_001, 10) == data[1_000_001:1_000_011]


async def test_output_is_bytes(host: Host) -> None:
    outputs = [b"", b"no final newline", b"\n\n", b"\xff\xfe\x00\x80 \xe9", b"a\r\nb\r"]
    await host.run_all([b"#!/usr/bin/tail -n+2\n" + data for data in outputs])
    assert [host.output(f"task-{number}") for number in range(len(outputs))] == outputs


async def test_a_script_without_an_interpreter_stops_at_the_first_error_of_bash(host: Host) -> None:
    status = await host.run("words=(a b); echo ${words[1]}; false; echo not reached")
    assert (status.exit_status, host.output()) == (1, b"b\n")


async def test_a_script_names_its_interpreter(host: Host) -> None:
    first_lines = ["#!/bin/sh", "#! /usr/bin/env  sh ", "#!\t/bin/sh", "#!/bin/sh -u"]
    for ended in await host.run_all([f"{first}\nfalse\necho $0" for first in first_lines]):
        assert ended.exit_status == 0
        assert host.output(ended.task_id) == f"{host.file('script', ended.task_id)}\n".encode()


@pytest.mark.parametrize("tail", [b"", bytes(range(256)) * 5])
async def test_a_script_is_bytes_too(host: Host, tail: bytes) -> None:
    script = b"#!/bin/cat\n\x00\xff\xfe%s\\0101'" + tail
    await host.run(script)
    assert host.output() == script


async def test_a_missing_interpreter_fails_the_task_and_says_so(host: Host) -> None:
    assert (await host.run("#!/nowhere/perl6\n")).exit_status == 127
    assert b"/nowhere/perl6" in host.output()


async def test_an_empty_script_succeeds(host: Host) -> None:
    assert (await host.run("")).exit_status == 0


async def test_a_script_runs_in_a_fresh_folder_with_no_stdin_and_the_users_umask(host: Host) -> None:
    await host.run("ls -A; umask; touch left-behind; cat; pwd")
    assert host.output() == f"{os.umask(os.umask(0o22)):04o}\n{host.file('work')}\n".encode()
    await eventually(lambda: not host.file("work").joinpath("left-behind").exists())


async def test_a_script_may_be_interrupted(host: Host) -> None:
    assert (await host.run("kill -INT $$")).signal == 2


async def test_nothing_is_left_behind_when_a_script_ends_early(host: Host) -> None:
    await host.run("true", timeout=300)
    await eventually(lambda: host.processes() == [])
    kept = ["exit", "output", "pid", "script", "task"]
    assert sorted(path.name for path in host.file("").iterdir()) == [*kept, "work"]
    assert list(host.file("work").iterdir()) == []
    for number, script in enumerate(["touch .a", "touch ..b", "touch c"]):
        await host.run_through(script, f"untidy-{number}")
        assert not host.file("work", f"untidy-{number}").exists()


async def test_what_a_script_puts_in_the_place_of_its_folder_is_not_followed(host: Host) -> None:
    data = host.folder / "data"
    data.mkdir()
    (data / "precious").touch()
    await host.run_through(f"cd ..; rmdir work; ln -s '{data}' work")
    assert (data / "precious").exists()
