"""Hosts that cannot be reached: each cause has its own reason, and nothing ran."""

import asyncssh
import pytest

from tests.peers.relay import running_relay
from tests.peers.serving import Served
from tests.peers.sshd import Sshd
from tests.service.executor.conftest import Executor, Run, Start, Task
from twinline.executor.v1 import runs_pb2, targets_pb2
from twinline.keys.v1 import cloud_keys_pb2, cloud_keys_pb2_grpc

SOON = {"seconds": 1}


async def test_a_closed_port_is_tried_until_the_time_is_over(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    host.stop()
    started = await executor.start("true", "web-1", reach_timeout=SOON)
    await executor.task_becomes(started.id, Task.STATE_PENDING, "PORT_UNREACHABLE")
    await executor.ended(started.id)
    task = await executor.task(started.id)
    assert (task.state, task.reason) == (Task.STATE_UNREACHABLE, "PORT_UNREACHABLE")
    assert "check the address" in task.message


async def test_a_port_that_opens_in_time_is_reached(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    host.stop()
    started = await executor.start("echo here", "web-1")
    await executor.task_becomes(started.id, Task.STATE_PENDING, "PORT_UNREACHABLE")
    await host.start()
    await executor.ended(started.id)
    task = await executor.task(started.id)
    assert (task.state, task.reason, task.message) == (Task.STATE_SUCCEEDED, "", "")


async def test_the_wrong_key_is_refused_at_once(executor: Executor, host: Sshd) -> None:
    host.authorize([asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()])
    await executor.add_host(host)
    task = await executor.run("true", "web-1")
    assert (task.state, task.reason) == (Task.STATE_REFUSED, "AUTH_REFUSED")


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
async def test_a_changed_host_key_is_refused_at_once(executor: Executor, host: Sshd, kind: str) -> None:
    await executor.add_host(host)
    assert (await executor.run("true", "web-1")).state == Task.STATE_SUCCEEDED
    host.kill_all()
    host.new_host_key(kind)
    await host.start()
    task = await executor.run("true", "web-1")
    assert (task.state, task.reason) == (Task.STATE_REFUSED, "HOST_KEY_MISMATCH")


async def test_a_stale_pin_refuses_its_own_target_only(executor: Executor, host: Sshd) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    await executor.add_host(host, "web-1", host_key=other)
    await executor.add_host(host, "web-2", host_key=host.host_key)
    await executor.add_host(host, "web-3")
    started = await executor.start("true", selector="name:web-*")
    await executor.ended(started.id)
    reasons = [(Task.State.Name(task.state), task.reason) for task in await executor.tasks(started.id)]
    assert reasons == [("STATE_REFUSED", "HOST_KEY_MISMATCH"), ("STATE_SUCCEEDED", ""), ("STATE_SUCCEEDED", "")]


async def test_a_kept_connection_does_not_outlive_the_pin(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    assert (await executor.run("true", "web-1")).state == Task.STATE_SUCCEEDED
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    await executor.add_host(host, host_key=other)
    assert (await executor.run("true", "web-1")).reason == "HOST_KEY_MISMATCH"


class Doorman(asyncssh.SSHServer):
    """Lets everyone in, and then shows them out at once."""

    logins = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return True

    def auth_completed(self) -> None:
        Doorman.logins += 1
        self._connection.disconnect(asyncssh.DISC_BY_APPLICATION, "not today")


async def test_a_host_that_ends_each_login_at_once_is_not_dialled_without_a_pause(
    executor: Executor, cloud_key: cloud_keys_pb2.CloudKey
) -> None:
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    async with asyncssh.listen("127.0.0.1", 0, server_factory=Doorman, server_host_keys=[host_key]) as server:
        line = targets_pb2.SshLine(host="127.0.0.1", port=server.get_port(), cloud_key="launch-key")
        target = targets_pb2.Target(id="t1", name="web-1", ssh=line)
        await executor.targets.ApplyTargets(targets_pb2.ApplyTargetsRequest(targets=[target]))
        started = await executor.start("true", "web-1", reach_timeout=SOON)
        await executor.ended(started.id)
    assert 1 <= Doorman.logins <= 10


async def test_a_kept_connection_does_not_outlive_its_key(start_executor: Start, host: Sshd) -> None:
    async with start_executor(ssh_key_known=0.0) as executor:
        await executor.add_host(host)
        running = await executor.start("echo begun; until [ -e $HOME/enough ]; do sleep 0.1; done", "web-1")
        await executor.task_becomes(running.id, Task.STATE_RUNNING)
        keys = cloud_keys_pb2_grpc.CloudKeyServiceStub(executor.keys.as_person("admin"))
        await keys.DeleteCloudKey(cloud_keys_pb2.DeleteCloudKeyRequest(key="launch-key"))
        refused = await executor.run("touch $HOME/ran", "web-1")
        assert (refused.state, refused.reason) == (Task.STATE_REFUSED, "KEY_NOT_FOUND")
        assert not (host.home / "ran").exists()
        (host.home / "enough").touch()  # what runs already is followed to its end
        assert (await executor.ended(running.id)).state == Run.STATE_SUCCEEDED


async def test_what_runs_is_canceled_over_an_open_connection_without_its_key(start_executor: Start, host: Sshd) -> None:
    async with start_executor(ssh_key_known=0.0) as executor:
        await executor.add_host(host)
        running = await executor.start("sleep 100", "web-1")
        await executor.task_becomes(running.id, Task.STATE_RUNNING)
        keys = cloud_keys_pb2_grpc.CloudKeyServiceStub(executor.keys.as_person("admin"))
        await keys.DeleteCloudKey(cloud_keys_pb2.DeleteCloudKeyRequest(key="launch-key"))
        await executor.runs.CancelRun(runs_pb2.CancelRunRequest(run=running.id))
        assert (await executor.ended(running.id)).state == Run.STATE_CANCELED


async def test_open_connections_are_used_while_keys_does_not_answer(
    start_executor: Start, host: Sshd, keys: Served
) -> None:
    async with (
        running_relay(int(keys.bound.mesh.rpartition(":")[2])) as relay,
        start_executor(keys_address=f"127.0.0.1:{relay.port}", ssh_key_known=0.0) as executor,
    ):
        await executor.add_host(host)
        assert (await executor.run("true", "web-1")).state == Task.STATE_SUCCEEDED
        await relay.stop()
        assert (await executor.run("true", "web-1")).state == Task.STATE_SUCCEEDED


async def test_missing_material_is_refused_until_it_is_uploaded(executor: Executor, host: Sshd) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    public = key.export_public_key().decode()
    keys = cloud_keys_pb2_grpc.CloudKeyServiceStub(executor.keys.as_person("admin"))
    await keys.ImportCloudKey(cloud_keys_pb2.ImportCloudKeyRequest(name="elsewhere", public_key=public))
    host.authorize([public])
    await executor.add_host(host, cloud_key="elsewhere")
    refused = await executor.run("true", "web-1")
    assert (refused.state, refused.reason) == (Task.STATE_REFUSED, "KEY_MATERIAL_MISSING")
    assert refused.message == "the private half of cloud key elsewhere is missing: upload its material"
    material = cloud_keys_pb2.UploadCloudKeyMaterialRequest(key="elsewhere", private_key=key.export_private_key())
    await keys.UploadCloudKeyMaterial(material)
    assert (await executor.run("true", "web-1")).state == Task.STATE_SUCCEEDED


async def test_an_unknown_cloud_key_is_refused(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host, cloud_key="no-such-key")
    task = await executor.run("true", "web-1")
    assert (task.state, task.reason) == (Task.STATE_REFUSED, "KEY_NOT_FOUND")


async def test_a_key_that_was_deleted_a_moment_ago_is_refused_at_the_first_login(
    executor: Executor, host: Sshd, caplog: pytest.LogCaptureFixture
) -> None:
    await executor.add_host(host)
    assert (await executor.run("true", "web-1")).state == Task.STATE_SUCCEEDED  # its public half is remembered
    keys = cloud_keys_pb2_grpc.CloudKeyServiceStub(executor.keys.as_person("admin"))
    await keys.DeleteCloudKey(cloud_keys_pb2.DeleteCloudKeyRequest(key="launch-key"))
    host.cut_sessions()
    task = await executor.run("true", "web-1")
    assert (task.state, task.reason) == (Task.STATE_REFUSED, "KEY_NOT_FOUND")
    assert not [record for record in caplog.records if "unexpectedly" in record.message]


async def test_a_host_that_runs_no_commands_says_so(executor: Executor, host: Sshd) -> None:
    host.stop()
    host.more = "ForceCommand echo this account is closed"
    await host.start()
    await executor.add_host(host)
    task = await executor.run("true", "web-1", reach_timeout=SOON)
    assert (task.state, task.reason) == (Task.STATE_UNKNOWN, "RUNNER_FAILED")
    assert "this account is closed" in task.message


@pytest.mark.parametrize("command", ["sleep 1000", "while echo noise; do echo noise >&2; sleep 0.05; done"])
async def test_a_host_that_says_nothing_of_a_task_does_not_hold_its_run(
    start_executor: Start, host: Sshd, command: str
) -> None:
    host.stop()
    host.more = f"ForceCommand {command}"
    await host.start()
    async with start_executor(ssh_silence=0.3) as executor:
        await executor.add_host(host)
        started = await executor.start("true", "web-1", reach_timeout={"seconds": 4})  # a login may take a while
        await executor.task_becomes(started.id, Task.STATE_PENDING, "HOST_SILENT")
        await executor.ended(started.id)
        assert (await executor.task(started.id)).state == Task.STATE_UNKNOWN


async def test_a_task_that_gets_no_connection_says_what_it_waits_for(start_executor: Start, host: Sshd) -> None:
    async with start_executor(ssh_connections=1, ssh_patience=0.3) as executor, running_relay(host.port) as relay:
        await executor.add_host(host)
        await executor.add_host(host, "web-2", port=relay.port)
        first = await executor.start("sleep 100", "web-1")
        await executor.task_becomes(first.id, Task.STATE_RUNNING)
        second = await executor.start("true", "web-2")
        await executor.task_becomes(second.id, Task.STATE_PENDING, "CONNECTIONS_BUSY")
        await executor.runs.CancelRun(runs_pb2.CancelRunRequest(run=first.id))
        assert (await executor.ended(second.id)).state == Run.STATE_SUCCEEDED


async def test_keys_that_do_not_answer_are_waited_for_and_named(
    start_executor: Start, host: Sshd, keys: Served
) -> None:
    async with (
        running_relay(int(keys.bound.mesh.rpartition(":")[2])) as relay,
        start_executor(keys_address=f"127.0.0.1:{relay.port}") as executor,
    ):
        await executor.add_host(host)
        await executor.set_credential("PASSWORD", b"hunter2")
        await relay.stop()
        started = await executor.start("true", "web-1", inputs={"P": "cred:PASSWORD"}, reach_timeout=SOON)
        await executor.task_becomes(started.id, Task.STATE_PENDING, "KEYS_UNAVAILABLE")
        await executor.ended(started.id)
        task = await executor.task(started.id)
        assert (task.state, task.reason) == (Task.STATE_UNREACHABLE, "KEYS_UNAVAILABLE")


async def test_a_pending_task_is_canceled_at_once(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    host.stop()
    started = await executor.start("touch $HOME/ran", "web-1")
    await executor.task_becomes(started.id, Task.STATE_PENDING, "PORT_UNREACHABLE")
    canceled = await executor.runs.CancelRun(runs_pb2.CancelRunRequest(run=started.id))
    assert (canceled.state, canceled.counts.canceled) == (Run.STATE_CANCELED, 1)
    await host.start()
    assert (await executor.run("true", "web-1")).state == Task.STATE_SUCCEEDED
    assert not (host.home / "ran").exists()
