"""Scripts on v4 hosts: what comes back is exact."""

import hashlib

import pytest

from tests.peers.eventually import eventually
from tests.peers.key_files import key_file
from tests.peers.relay import running_relay
from tests.peers.sshd import Sshd
from tests.service.executor.conftest import Executor, Run, Start, Task
from twinline.executor.v1 import runs_pb2, targets_pb2
from twinline.keys.v1 import cloud_keys_pb2, cloud_keys_pb2_grpc
from twinline_executor import ssh_connections


async def test_a_script_succeeds_and_its_output_is_kept(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    task = await executor.run("echo to stdout; echo to stderr >&2", "web-1")
    assert (task.state, task.exit_status, task.line) == (Task.STATE_SUCCEEDED, 0, Task.LINE_SSH)
    assert await executor.output(task) == b"to stdout\nto stderr\n"
    assert task.output_sha256 == hashlib.sha256(b"to stdout\nto stderr\n").hexdigest()
    assert task.start_time.seconds <= task.end_time.seconds


@pytest.mark.parametrize(
    ("command", "status", "signal"),
    [("exit 1", 1, 0), ("exit 137", 137, 0), ("kill -9 $$", 137, 9), ("kill -15 $$", 143, 15)],
)
async def test_a_failure_is_told_exactly(
    executor: Executor, host: Sshd, command: str, status: int, signal: int
) -> None:
    await executor.add_host(host)
    task = await executor.run(command, "web-1")
    assert (task.state, task.exit_status, task.signal) == (Task.STATE_FAILED, status, signal)
    run = (await executor.runs.ListRuns(runs_pb2.ListRunsRequest())).runs[0]
    assert (run.state, run.counts.failed, run.counts.total) == (Run.STATE_FAILED, 1, 1)


async def test_five_mebibytes_of_any_bytes_come_back_equal(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    task = await executor.run("head -c 5242880 /dev/urandom | tee $HOME/copy", "web-1")
    expected = (host.home / "copy").read_bytes()
    assert task.state == Task.STATE_SUCCEEDED
    assert task.output_size == 5242880
    assert task.output_sha256 == hashlib.sha256(expected).hexdigest()
    assert await executor.output(task) == expected


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("printf 'no newline'", b"no newline"),
        ("printf '\\377\\200\\000\\n'", b"\xff\x80\x00\n"),
        ("true", b""),
        ("printf 'twinline-status id=x state=finished\\n' >&2", b"twinline-status id=x state=finished\n"),
    ],
)
async def test_output_is_not_touched(executor: Executor, host: Sshd, command: str, expected: bytes) -> None:
    await executor.add_host(host)
    task = await executor.run(command, "web-1")
    assert (task.state, task.output_size) == (Task.STATE_SUCCEEDED, len(expected))
    assert await executor.output(task) == expected


async def test_a_script_finds_its_inputs_and_itself_in_the_environment(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    inputs = {"GREETING": 'text:it\'s "fine"; rm -rf $HOME `id` \n\\n é', "EMPTY": "blank", "NOT_SET": "ignore"}
    command = 'printf "%s|" "$GREETING" "${EMPTY-unset}" "${NOT_SET-unset}" "$TWINLINE_SERVER" "$TWINLINE_TASK"'
    task = await executor.run(command, "web-1", inputs=inputs)
    greeting = inputs["GREETING"].removeprefix("text:")
    assert (await executor.output(task)).decode() == f"{greeting}||unset|web-1|{task.id}|"


async def test_metacharacters_in_names_stay_text(executor: Executor, host: Sshd) -> None:
    name = "a'b\"; touch $HOME/pwned; `id` $(id) \\"
    await executor.add_host(host, name)
    task = await executor.run('printf %s "$TWINLINE_SERVER"', name)
    assert (await executor.output(task)).decode() == name
    assert not (host.home / "pwned").exists()


async def test_a_limit_holds_on_the_host(start_executor: Start, host: Sshd) -> None:
    async with start_executor(kill_after=0.5) as executor:
        await executor.add_host(host)
        task = await executor.run("trap '' TERM; echo begun; sleep 100", "web-1", timeout={"seconds": 1})
        assert (task.state, task.signal) == (Task.STATE_TIMED_OUT, 9)
        assert await executor.output(task) == b"begun\n"


async def test_a_running_script_is_canceled_on_its_host(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    started = await executor.start("echo begun; sleep 100", "web-1")
    await executor.task_becomes(started.id, Task.STATE_RUNNING)
    for _ in range(2):
        await executor.runs.CancelRun(runs_pb2.CancelRunRequest(run=started.id))
    assert (await executor.ended(started.id)).state == Run.STATE_CANCELED
    assert (await executor.task(started.id)).state == Task.STATE_CANCELED


async def test_output_is_followed_while_it_comes(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    started = await executor.start("echo one; while [ ! -e $HOME/go ]; do sleep 0.05; done; echo two", "web-1")
    task = await executor.task(started.id)
    pieces = executor.runs.ReadOutput(runs_pb2.ReadOutputRequest(task=task.id, follow=True))
    first = await anext(aiter(pieces))
    assert first.data == b"one\n"
    (host.home / "go").touch()
    assert [piece.data async for piece in pieces] == [b"two\n"]


async def test_a_script_that_says_no_more_than_the_beginning_of_a_secret_is_shown_as_running(
    executor: Executor, host: Sshd
) -> None:
    await executor.set_credential("PASSWORD", b"hunter2")
    await executor.add_host(host)
    command = "printf hunter; until [ -e $HOME/go ]; do sleep 0.05; done; printf 2"
    started = await executor.start(command, "web-1", inputs={"P": "cred:PASSWORD"})
    await executor.task_becomes(started.id, Task.STATE_RUNNING)
    begun: bool = await eventually(lambda: has_begun(executor, started.id))
    assert begun
    (host.home / "go").touch()
    assert (await executor.ended(started.id)).state == Run.STATE_SUCCEEDED
    assert await executor.output(await executor.task(started.id)) == b"*******"


async def has_begun(executor: Executor, run_id: str) -> bool:
    """Whether it is told since when the first task of a run has run."""
    return (await executor.task(run_id)).HasField("start_time")


async def test_a_login_shell_that_talks_does_not_reach_the_output(executor: Executor, host: Sshd) -> None:
    (host.home / ".bashrc").write_text("echo welcome; echo to you >&2\n")
    await executor.add_host(host)
    assert await executor.output(await executor.run("echo mine", "web-1")) == b"mine\n"


async def test_output_past_the_limit_is_dropped_and_said(start_executor: Start, host: Sshd) -> None:
    async with start_executor(max_output=1000) as executor:
        await executor.add_host(host)
        task = await executor.run("head -c 5000 /dev/zero", "web-1")
        assert (task.state, task.output_size, task.output_truncated) == (Task.STATE_SUCCEEDED, 1000, True)
        assert await executor.output(task) == bytes(1000)


async def test_a_run_keeps_the_limit_of_output_that_it_was_started_with(start_executor: Start, host: Sshd) -> None:
    loud = "echo begun; until [ -e $HOME/go ]; do sleep 0.05; done; head -c 5000 /dev/zero"
    async with start_executor(max_output=3000) as executor:
        await executor.add_host(host)
        running = await executor.start(loud, "web-1")
        await executor.task_becomes(running.id, Task.STATE_RUNNING)
        host.stop()
        waiting = await executor.start(loud, "web-1")
    async with start_executor(max_output=1000) as executor:
        (host.home / "go").touch()
        await host.start()
        for run in (running, waiting):
            await executor.ended(run.id)
            task = await executor.task(run.id)
            assert (task.state, task.output_size, task.output_truncated) == (Task.STATE_SUCCEEDED, 3000, True)


@pytest.mark.parametrize("kind", ["ssh-rsa", "ecdsa-sha2-nistp256"])
async def test_other_kinds_of_keys_log_in_too(executor: Executor, host: Sshd, kind: str) -> None:
    file = key_file(kind)
    keys = cloud_keys_pb2_grpc.CloudKeyServiceStub(executor.keys.as_person("admin"))
    await keys.ImportCloudKey(cloud_keys_pb2.ImportCloudKeyRequest(name="other", public_key=file.public))
    await keys.UploadCloudKeyMaterial(
        cloud_keys_pb2.UploadCloudKeyMaterialRequest(key="other", private_key=file.private())
    )
    host.authorize([file.public])
    await executor.add_host(host, cloud_key="other")
    assert (await executor.run("true", "web-1")).state == Task.STATE_SUCCEEDED


async def test_a_host_may_forget_before_an_executor_stops(start_executor: Start, host: Sshd) -> None:
    async with start_executor() as executor:
        await executor.add_host(host)
        task = await executor.run("true", "web-1")
    assert (host.journal(task.id) / "forgotten").exists()


async def test_a_host_may_forget_before_its_connection_makes_room(start_executor: Start, host: Sshd) -> None:
    async with start_executor(ssh_connections=1) as executor, running_relay(host.port) as relay:
        await executor.add_host(host)
        await executor.add_host(host, "web-2", port=relay.port)
        task = await executor.run("true", "web-1")
        assert (await executor.run("true", "web-2")).state == Task.STATE_SUCCEEDED
        assert (host.journal(task.id) / "forgotten").exists()


async def test_tasks_on_one_host_share_connections(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    await executor.run("true", "web-1")
    started = [await executor.start("sleep 0.5", "web-1") for _ in range(10)]
    for run in started:
        assert (await executor.ended(run.id)).state == Run.STATE_SUCCEEDED
    logins = (host.folder / "sshd.log").read_text().count("Accepted publickey")
    assert logins == 2  # eight channels on the first, the rest on a second


async def test_a_host_key_is_learned_at_first_contact(executor: Executor, host: Sshd) -> None:
    before = await executor.add_host(host)
    assert (before.ssh.host_key, before.ssh.host_key_learned) == ("", False)
    await executor.run("true", "web-1")
    after = await executor.targets.GetTarget(targets_pb2.GetTargetRequest(target="web-1"))
    assert (after.ssh.host_key, after.ssh.host_key_learned) == (host.host_key, True)


async def test_a_host_may_forget_what_is_stored(start_executor: Start, host: Sshd) -> None:
    async with start_executor(ssh_idle=0.2) as executor:
        await executor.add_host(host)
        task = await executor.run("echo kept", "web-1")
        await eventually((host.journal(task.id) / "forgotten").exists)


async def test_a_host_that_is_never_idle_may_forget_too(
    start_executor: Start, host: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_connections, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(ssh_connections, "FORGET_AFTER", 0.3)
    async with start_executor() as executor:
        await executor.add_host(host)
        other = await executor.start("sleep 60", "web-1")
        task = await executor.run("echo kept", "web-1")
        await eventually((host.journal(task.id) / "forgotten").exists)
        assert (await executor.task(other.id)).state in (Task.STATE_DELIVERED, Task.STATE_RUNNING)
