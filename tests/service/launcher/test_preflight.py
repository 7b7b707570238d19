"""What is found before money is spent."""

import uuid

import asyncssh
import pytest

from tests.service.launcher.conftest import fill
from tests.service.launcher.world import Launcher, World, state_of
from twinline.keys.v1 import cloud_keys_pb2
from twinline.launcher.v1 import catalog_pb2, servers_pb2
from twinline_launcher.errors import PreflightRefused

NEEDS = "#!/bin/sh\n# ---\n# RightScript Name: needs\n# Inputs:\n#   PORT: {Required: true}\n"
CHOICE = "#   SIZE: {Possible Values: ['text:s', 'text:l']}\n"
END = "# ...\n"


async def fingerprint_only(world: World) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    request = cloud_keys_pb2.ImportCloudKeyRequest(
        name="seen", fingerprint=key.get_fingerprint(), request_id=str(uuid.uuid4())
    )
    await world.cloud_keys().ImportCloudKey(request)


async def test_a_complete_server_has_nothing_against_it(launcher: Launcher) -> None:
    await launcher.server()
    await launcher.server("web-2", image="v5")
    assert (await launcher.preflight(), await launcher.preflight("web-2")) == ({}, {})


async def test_a_server_without_anything_is_told_all_of_it_at_once(launcher: Launcher) -> None:
    await launcher.server(image="", template="", cloud_key="", security_groups=[])
    assert set(await launcher.preflight()) == {"IMAGE_UNSET", "TEMPLATE_UNSET", "CLOUD_KEY_UNSET"}


async def test_an_unstated_generation_is_v4_and_said_so_without_refusing(launcher: Launcher) -> None:
    await launcher.image("plain")
    server = await launcher.server(image="plain")
    assert (server.generation, server.generation_assumed) == (4, True)
    assert await launcher.preflight() == {"GENERATION_ASSUMED": False}
    assert (await launcher.operational()).generation_assumed


@pytest.mark.parametrize(
    ("image", "found"),
    [("v4", {"KEY_MATERIAL_MISSING": True, "PUBLIC_KEY_MISSING": True, "PORT_22_CLOSED": True}), ("v5", {})],
)
async def test_only_v4_minds_its_key_and_its_port(
    launcher: Launcher, world: World, image: str, found: dict[str, bool]
) -> None:
    await fingerprint_only(world)
    await launcher.server(image=image, cloud_key="seen", security_groups=[])
    assert await launcher.preflight() == found


@pytest.mark.parametrize("image", ["v4", "v5"])
async def test_a_key_that_is_gone_refuses_either_generation_even_when_forced(launcher: Launcher, image: str) -> None:
    await launcher.server(image=image, cloud_key="gone")
    with pytest.raises(PreflightRefused) as refusal:
        await launcher.launch(force=True)
    assert [(each.reason, each.subject) for each in refusal.value.violations] == [("CLOUD_KEY_NOT_FOUND", "gone")]
    assert state_of(await launcher.get()) == "INACTIVE"


async def test_an_unknown_instance_type_is_refused_with_those_there_are(launcher: Launcher) -> None:
    await launcher.server(instance_type="huge")
    with pytest.raises(PreflightRefused) as refusal:
        await launcher.launch(force=True)
    assert "local-small" in refusal.value.violations[0].message


async def test_missing_and_impossible_inputs_name_the_script_that_wants_them(launcher: Launcher, world: World) -> None:
    await world.script(NEEDS + CHOICE + END, "needs")
    await launcher.template(boot=["needs"])
    await launcher.server(inputs={"SIZE": "text:m"})
    request = servers_pb2.PreflightServerRequest(server="web-1")
    found = (await launcher.servers.PreflightServer(request)).violations
    assert [each.reason for each in found] == ["INPUT_MISSING", "INPUT_MALFORMED"]
    assert found[0].message == "script needs needs input PORT: give it as PORT=text:VALUE"
    assert await launcher.preflight(PORT="text:80", SIZE="text:s") == {}


async def test_a_credential_that_is_not_set_is_found(launcher: Launcher) -> None:
    await launcher.server(inputs={"PASSWORD": "cred:nobody"})
    assert await launcher.preflight() == {"INPUT_UNUSED": False, "CREDENTIAL_NOT_FOUND": True}


async def test_a_value_that_no_script_takes_is_warned_of_but_for_a_deployment_s(
    launcher: Launcher, world: World
) -> None:
    await world.script(NEEDS + END, "needs")
    await launcher.template(boot=["hello", "needs"], inputs={"PORT": "text:80"})
    request = catalog_pb2.ApplyDeploymentRequest(
        deployment=catalog_pb2.Deployment(name="shop", inputs={"OTHER": "text:x"})
    )
    await launcher.catalog.ApplyDeployment(request)
    await launcher.server(deployment="shop", inputs={"PROT": "text:81"})
    preflight = servers_pb2.PreflightServerRequest(server="web-1", inputs={"NOBODY_WANTS": "blank"})
    found = (await launcher.servers.PreflightServer(preflight)).violations
    assert {each.reason: each.blocking for each in found} == {"INPUT_UNUSED": False}
    assert [each.message for each in found] == [
        "no boot or decommission script takes NOBODY_WANTS; leave it out, or let one of them declare it",
        "no boot or decommission script takes PROT; did you mean PORT?",
    ]


async def test_what_only_an_operational_script_declares_is_given_with_its_runs(
    launcher: Launcher, world: World
) -> None:
    await world.script(NEEDS + END, "needs")
    await launcher.template(boot=["hello"], operational=["needs"])
    await launcher.server(inputs={"PORT": "text:80"})
    found = (await launcher.servers.PreflightServer(servers_pb2.PreflightServerRequest(server="web-1"))).violations
    assert [(each.reason, each.blocking, each.message) for each in found] == [
        (
            "INPUT_UNUSED",
            False,
            "no boot or decommission script takes PORT; operational script needs is given its inputs with each run",
        )
    ]


async def test_without_sshd_no_v4_machine_is_asked_for_not_even_by_force(world: World) -> None:
    async with world.launcher(sshd_program="/no/such/sshd") as launcher:
        await fill(launcher)
        await launcher.server()
        await launcher.server("web-2", image="v5")
        with pytest.raises(PreflightRefused) as refusal:
            await launcher.launch(force=True)
        assert [each.reason for each in refusal.value.violations] == ["SSHD_MISSING"]
        assert "apt-get install openssh-server" in refusal.value.violations[0].message
        assert state_of(await launcher.get()) == "INACTIVE"
        assert await launcher.preflight("web-2") == {}


async def test_a_refusal_says_what_is_wrong_in_its_violations_alone(launcher: Launcher) -> None:
    await launcher.server(security_groups=[])
    with pytest.raises(PreflightRefused) as refusal:
        await launcher.launch()
    assert refusal.value.message == "web-1 would not boot as it is; mend what follows, or force the launch"
    assert [each.reason for each in refusal.value.violations] == ["PORT_22_CLOSED"]


async def test_a_forced_launch_says_in_its_cause_what_it_did_not_mind(launcher: Launcher, world: World) -> None:
    await world.script(NEEDS + END, "needs")
    await launcher.template(boot=["needs"])
    await launcher.server()
    await launcher.launch(force=True)
    stranded = await launcher.becomes("STRANDED_IN_BOOTING")
    assert stranded.current.stranding.reason == "INPUT_MISSING"
    transitions = await launcher.servers.ListTransitions(servers_pb2.ListTransitionsRequest(server="web-1"))
    assert transitions.transitions[0].cause == "launched by admin, in spite of INPUT_MISSING"
