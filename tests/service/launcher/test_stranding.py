"""Boots and decommissions that stop, why they say they did, and the way out of it."""

import uuid
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from tests.peers.serving import Served
from tests.service.launcher.conftest import fill
from tests.service.launcher.world import Launcher, World, outcomes, running_world, state_of, word
from twinline.keys.v1 import cloud_keys_pb2
from twinline.launcher.v1 import servers_pb2
from twinline_kit.errors import Error
from twinline_launcher.errors import IllegalTransition, PreflightRefused
from twinline_launcher.providers.local import processes

KEY = asyncssh.generate_private_key("ssh-ed25519")

either_line = pytest.mark.parametrize("image", ["v4", "v5"])


async def found_key(world: World) -> None:
    """A key whose private half is elsewhere."""
    public_key = KEY.export_public_key().decode()
    request = cloud_keys_pb2.ImportCloudKeyRequest(
        name="found-key", public_key=public_key, request_id=str(uuid.uuid4())
    )
    await world.cloud_keys().ImportCloudKey(request)


async def test_without_key_material_v4_is_refused_then_strands_and_resumes(launcher: Launcher, world: World) -> None:
    await found_key(world)
    await launcher.server(cloud_key="found-key")
    with pytest.raises(PreflightRefused) as refusal:
        await launcher.launch()
    assert [each.reason for each in refusal.value.violations] == ["KEY_MATERIAL_MISSING"]
    await launcher.launch(force=True)
    stranded = (await launcher.becomes("STRANDED_IN_BOOTING")).current
    assert (stranded.stranding.reason, stranded.stranding.failed_step) == ("KEY_MATERIAL_MISSING", "hello")
    assert stranded.stranding.way_out.startswith("`twinline keys upload-material found-key FILE`, then")
    material = cloud_keys_pb2.UploadCloudKeyMaterialRequest(key="found-key", private_key=KEY.export_private_key())
    await world.cloud_keys().UploadCloudKeyMaterial(material)
    await launcher.resume()
    resumed = (await launcher.becomes("OPERATIONAL")).current
    assert (resumed.id, resumed.cloud_id) == (stranded.id, stranded.cloud_id)
    assert resumed.cost.stranded.ToTimedelta() > timedelta()
    assert await launcher.history() == ["PENDING", "BOOTING", "STRANDED_IN_BOOTING", "BOOTING", "OPERATIONAL"]


async def test_v5_does_not_mind_missing_material_nor_closed_ports(launcher: Launcher, world: World) -> None:
    await found_key(world)
    await launcher.server(image="v5", cloud_key="found-key", security_groups=[])
    assert await launcher.preflight() == {}
    assert outcomes(await launcher.operational()) == {"hello": "succeeded"}


@either_line
async def test_a_resume_goes_on_from_the_failed_step_and_repeats_nothing(
    launcher: Launcher, world: World, image: str
) -> None:
    mended = world.folder / "mended"
    await world.script(f"#!/bin/sh\ntest -e {mended} || exit 3\n", "picky")
    await launcher.template(boot=["hello", "picky", "bye"])
    await launcher.server(image=image)
    await launcher.launch()
    stranded = await launcher.becomes("STRANDED_IN_BOOTING")
    assert outcomes(stranded) == {"hello": "succeeded", "picky": "failed", "bye": "waiting"}
    why = stranded.current.stranding
    assert (why.reason, why.message) == ("SCRIPT_FAILED", "script picky ended with exit status 3")
    mended.touch()
    await launcher.resume()
    assert set(outcomes(await launcher.becomes("OPERATIONAL")).values()) == {"succeeded"}
    assert await world.run_names() == ["hello", "picky", "picky", "bye"]


async def test_a_script_mended_since_the_launch_is_run_beside_the_list(launcher: Launcher, world: World) -> None:
    await world.script("#!/bin/sh\nexit 1\n", "broken")
    await launcher.template(boot=["broken"])
    await launcher.server()
    await launcher.launch()
    stranded = await launcher.becomes("STRANDED_IN_BOOTING")
    assert "revision" not in stranded.current.stranding.way_out
    await world.script("#!/bin/sh\necho mended\n", "broken")
    await launcher.resume()
    again: bool = await eventually(partial(has_stranded_twice, launcher))
    assert again
    why = (await launcher.get()).current.stranding
    assert why.way_out.startswith(
        "web-1 keeps broken revision 1 (newest: 2): `twinline run broken --on name:web-1`, th"
    )
    await world.run("broken", "name:web-1")
    await launcher.force_operational()


async def test_a_repeated_request_resumes_and_declares_operational_once(launcher: Launcher, world: World) -> None:
    await world.script("#!/bin/sh\nexit 1\n", "broken")
    await launcher.template(boot=["broken"])
    await launcher.server()
    await launcher.launch()
    await launcher.becomes("STRANDED_IN_BOOTING")
    await launcher.resume(request_id="go on")
    again: bool = await eventually(partial(has_stranded_twice, launcher))
    assert again
    assert state_of(await launcher.resume(request_id="go on")) == "STRANDED_IN_BOOTING"
    await launcher.force_operational(request_id="declare it")
    assert state_of(await launcher.force_operational(request_id="declare it")) == "OPERATIONAL"
    assert await world.run_names() == ["broken", "broken"]


async def test_a_closed_port_strands_after_the_connect_window_until_it_is_opened(world: World) -> None:
    async with world.launcher(connect_window_v4=1.0) as launcher:
        await fill(launcher)
        await launcher.group(80)
        await launcher.server()
        assert await launcher.preflight() == {"PORT_22_CLOSED": True}
        await launcher.launch(force=True)
        stranded = await launcher.becomes("STRANDED_IN_BOOTING")
        assert stranded.current.stranding.reason == "PORT_UNREACHABLE"
        await launcher.group(22, name="another")
        await launcher.server(security_groups=["another"])
        assert await launcher.preflight() == {"MACHINE_PORT_22_CLOSED": False}
        await launcher.resume()
        again: bool = await eventually(partial(has_stranded_twice, launcher))
        assert again
        why = (await launcher.get()).current.stranding
        assert why.way_out.startswith("open port 22 in security group open and check that sshd runs")
        await launcher.group(22, 80)
        assert await launcher.preflight() == {}
        await launcher.resume()
        await launcher.becomes("OPERATIONAL")


async def test_a_step_tells_what_its_task_waits_for_until_that_runs(world: World) -> None:
    await world.script("#!/bin/sh\nsleep 1000\n", "slow")
    async with world.launcher() as launcher:
        await fill(launcher)
        await launcher.template(boot=["slow"])
        await launcher.group(80)
        await launcher.server()
        await launcher.launch(force=True)
        await until_task_is(launcher, "pending", "PORT_UNREACHABLE")
        await launcher.group(22)
        await until_task_is(launcher, "running", "")
        await launcher.terminate()
        await launcher.becomes("TERMINATED")


async def until_task_is(launcher: Launcher, state: str, reason: str) -> None:
    """Wait until the run of the only step was asked for, and the step tells that of its task."""

    async def check() -> bool:
        [step] = (await launcher.get()).current.steps
        return (word(step), bool(step.run), step.reason) == (state, True, reason)

    is_so: bool = await eventually(check, within=20)
    assert is_so


async def test_a_machine_without_a_group_is_helped_by_another_launch_alone(world: World) -> None:
    async with world.launcher(connect_window_v4=1.0) as launcher:
        await fill(launcher)
        await launcher.server(security_groups=[])
        assert await findings(launcher) == {
            "PORT_22_CLOSED": "server web-1 has no security group: give it one that opens port 22; scripts reach a v4 "
            "server through it"
        }
        await launcher.launch(force=True)
        stranded = await launcher.becomes("STRANDED_IN_BOOTING")
        assert stranded.current.stranding.way_out.startswith("the machine has no security group")
        await launcher.server()
        assert await findings(launcher) == {
            "MACHINE_PORT_22_CLOSED": "the present machine of web-1 was launched without a group that opens port 22, "
            "and keeps its groups: terminate it, and launch again with a group that opens port 22"
        }
        await launcher.terminate()
        await launcher.becomes("TERMINATED")
        assert await findings(launcher) == {}
        await launcher.operational()


async def findings(launcher: Launcher, name: str = "web-1") -> dict[str, str]:
    answer = await launcher.servers.PreflightServer(servers_pb2.PreflightServerRequest(server=name))
    return {each.reason: each.message for each in answer.violations}


async def test_a_key_deleted_meanwhile_strands_with_its_name_and_no_promise_of_a_resume(world: World) -> None:
    async with world.launcher(connect_window_v4=1.0) as launcher:
        await fill(launcher)
        await launcher.group(80)
        await launcher.server()
        await launcher.launch(force=True)
        await launcher.becomes("STRANDED_IN_BOOTING")
        await world.cloud_keys().DeleteCloudKey(cloud_keys_pb2.DeleteCloudKeyRequest(key="launch-key"))
        await launcher.group(22)
        await launcher.resume()
        again: bool = await eventually(partial(has_stranded_twice, launcher))
        assert again
        why = (await launcher.get()).current.stranding
        assert (why.reason, why.message.split(";")[0]) == ("KEY_NOT_FOUND", "no cloud key launch-key")
        assert why.way_out.startswith("cloud key launch-key was deleted")


async def has_stranded_twice(launcher: Launcher) -> bool:
    return (await launcher.history()).count("STRANDED_IN_BOOTING") == 2


async def test_an_agent_that_cannot_enrol_strands_after_the_window(
    authority: Certificates, keys: Served, tmp_path: Path
) -> None:
    nowhere: dict[str, Any] = {"advertised_enroll_address": "127.0.0.1:1"}
    async with (
        running_world(authority, tmp_path, keys, **nowhere) as world,
        world.launcher(enrollment_window_v5=1.0) as launcher,
    ):
        await fill(launcher)
        await launcher.server(image="v5")
        await launcher.launch()
        stranded = await launcher.becomes("STRANDED_IN_BOOTING")
        assert stranded.current.stranding.reason == "AGENT_NEVER_ENROLLED"


async def test_an_empty_boot_list_still_proves_that_the_machine_is_reached(launcher: Launcher, world: World) -> None:
    await found_key(world)
    await launcher.template()
    await launcher.server(cloud_key="found-key")
    await launcher.launch(force=True)
    stranded = await launcher.becomes("STRANDED_IN_BOOTING")
    assert stranded.current.stranding.failed_step == "connect"


@either_line
async def test_an_empty_boot_list_is_one_step_that_connects(launcher: Launcher, image: str) -> None:
    await launcher.template()
    await launcher.server(image=image)
    assert outcomes(await launcher.operational()) == {"connect": "succeeded"}


@either_line
async def test_a_stranded_server_can_be_declared_operational_without_a_script(
    launcher: Launcher, world: World, image: str
) -> None:
    await world.script("#!/bin/sh\nexit 1\n", "broken")
    await launcher.template(boot=["broken", "hello"])
    await launcher.server(image=image)
    await launcher.launch()
    await launcher.becomes("STRANDED_IN_BOOTING")
    await launcher.force_operational()
    server = await launcher.becomes("OPERATIONAL")
    assert server.current.cause == "declared operational by admin, without running any script"
    assert not server.current.HasField("stranding")
    assert await world.run_names() == ["broken"]


@either_line
async def test_a_stranded_boot_is_ended_at_once_without_the_decommission_list(
    launcher: Launcher, world: World, image: str
) -> None:
    await world.script("#!/bin/sh\nkill -9 $$\n", "broken")
    await launcher.template(boot=["broken"], decommission=["bye"])
    await launcher.server(image=image)
    await launcher.launch()
    stranded = await launcher.becomes("STRANDED_IN_BOOTING")
    assert stranded.current.stranding.message == "script broken was ended by signal 9"
    await launcher.terminate()
    await launcher.becomes("TERMINATED")
    assert await world.run_names() == ["broken"]


@either_line
async def test_a_failed_decommission_waits_for_a_second_terminate(launcher: Launcher, world: World, image: str) -> None:
    await world.script("#!/bin/sh\nexit 7\n", "clumsy")
    await launcher.template(boot=["hello"], decommission=["clumsy", "bye"])
    await launcher.server(image=image)
    await launcher.operational()
    await launcher.terminate()
    stranded = await launcher.becomes("STRANDED_IN_DECOMMISSIONING")
    assert stranded.current.stranding.failed_step == "clumsy"
    assert outcomes(stranded) == {"clumsy": "failed", "bye": "waiting"}
    await launcher.terminate()
    await launcher.becomes("TERMINATED")
    assert (await launcher.history())[-3:] == ["STRANDED_IN_DECOMMISSIONING", "SHUTTING_DOWN", "TERMINATED"]


@either_line
async def test_a_decommission_that_overruns_is_ended_by_force_after_a_while(world: World, image: str) -> None:
    limits: dict[str, Any] = {
        "decommission_limit_v4": 1.0,
        "decommission_limit_v5": 1.0,
        "stranded_decommission_limit": 1.0,
    }
    await world.script("#!/bin/sh\nsleep 1000\n", "slow")
    async with world.launcher(**limits) as launcher:
        await fill(launcher)
        await launcher.template(boot=["hello"], decommission=["slow"])
        await launcher.server(image=image)
        await launcher.operational()
        await launcher.terminate()
        stranded = await launcher.becomes("STRANDED_IN_DECOMMISSIONING")
        assert stranded.current.stranding.reason == "SCRIPT_TIMED_OUT"
        await launcher.becomes("TERMINATED")
        assert (await launcher.history())[-2:] == ["SHUTTING_DOWN", "TERMINATED"]


async def test_a_machine_is_ended_although_the_executor_never_answers(world: World) -> None:
    async with world.launcher() as launcher:
        await fill(launcher)
        await launcher.server()
        machine = (await launcher.operational()).current.id
    limits: dict[str, Any] = {"decommission_limit_v4": 0.2, "stranded_decommission_limit": 0.2, "limit_grace": 0.2}
    async with world.launcher(executor_address="127.0.0.1:1", **limits) as launcher:
        await launcher.terminate()
        await launcher.becomes("TERMINATED")
        assert (await launcher.history())[-3:] == ["STRANDED_IN_DECOMMISSIONING", "SHUTTING_DOWN", "TERMINATED"]
    assert not processes.of_machine(machine)


async def test_a_cloud_that_refuses_leaves_an_error_that_can_be_cleared(world: World) -> None:
    async with world.launcher(concurrency=0) as launcher:
        await fill(launcher)
        await launcher.server()
        await launcher.launch()
    async with world.launcher(sshd_program="/no/such/sshd") as launcher:
        failed = await launcher.becomes("ERROR")
        assert "apt-get install openssh-server" in failed.current.cause
        assert failed.current.cost.micros == 0
        await launcher.terminate()
        await launcher.becomes("TERMINATED")


@pytest.mark.parametrize("verb", ["resume", "terminate"])
async def test_what_the_table_does_not_have_is_refused_with_state_event_and_what_is_possible(
    launcher: Launcher, verb: str
) -> None:
    await launcher.server()
    with pytest.raises(Error) as refusal:
        await getattr(launcher, verb)()
    assert isinstance(refusal.value, IllegalTransition)
    assert refusal.value.metadata == {
        "server": "web-1", "state": "INACTIVE", "event": verb.upper(), "allowed": "launch",
    }  # fmt: skip
