"""Hosts that cannot be reached: each cause has its own reason, and nothing ran."""

import asyncssh
import pytest

from tests.peers.sshd import Sshd
from tests.service.executor.conftest import Executor, Run, Task
from twinline.executor.v1 import runs_pb2
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


async def test_a_kept_connection_does_not_outlive_the_pin(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    assert (await executor.run("true", "web-1")).state == Task.STATE_SUCCEEDED
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    await executor.add_host(host, host_key=other)
    assert (await executor.run("true", "web-1")).reason == "HOST_KEY_MISMATCH"


async def test_missing_material_is_refused_until_it_is_uploaded(executor: Executor, host: Sshd) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    public = key.export_public_key().decode()
    keys = cloud_keys_pb2_grpc.CloudKeyServiceStub(executor.keys.as_person("admin"))
    await keys.ImportCloudKey(cloud_keys_pb2.ImportCloudKeyRequest(name="elsewhere", public_key=public))
    host.authorize([public])
    await executor.add_host(host, cloud_key="elsewhere")
    refused = await executor.run("true", "web-1")
    assert (refused.state, refused.reason) == (Task.STATE_REFUSED, "KEY_MATERIAL_MISSING")
    assert "upload-material" in refused.message
    material = cloud_keys_pb2.UploadCloudKeyMaterialRequest(key="elsewhere", private_key=key.export_private_key())
    await keys.UploadCloudKeyMaterial(material)
    assert (await executor.run("true", "web-1")).state == Task.STATE_SUCCEEDED


async def test_an_unknown_cloud_key_is_refused(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host, cloud_key="no-such-key")
    task = await executor.run("true", "web-1")
    assert (task.state, task.reason) == (Task.STATE_REFUSED, "KEY_NOT_FOUND")


async def test_a_host_that_runs_no_commands_says_so(executor: Executor, host: Sshd) -> None:
    host.stop()
    host.more = "ForceCommand echo this account is closed"
    await host.start()
    await executor.add_host(host)
    task = await executor.run("true", "web-1", reach_timeout=SOON)
    assert (task.state, task.reason) == (Task.STATE_UNKNOWN, "RUNNER_FAILED")
    assert "this account is closed" in task.message


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
