"""Servers of both generations through their whole lives, with every service real."""

import uuid
from functools import partial
from pathlib import Path

import pytest

from tests.peers.eventually import eventually
from tests.service.launcher.world import Launcher, World, outcomes, state_of, word
from twinline.agent_gateway.v1 import fleet_pb2
from twinline.executor.v1 import targets_pb2
from twinline.launcher.v1 import servers_pb2
from twinline_kit.errors import InvalidArgument, NotFound
from twinline_launcher.errors import IllegalTransition
from twinline_launcher.providers.local import processes

WHOLE_LIFE = ["PENDING", "BOOTING", "OPERATIONAL", "DECOMMISSIONING", "SHUTTING_DOWN", "TERMINATED"]


async def target(world: World, name: str = "web-1") -> targets_pb2.Target:
    return await world.targets().GetTarget(targets_pb2.GetTargetRequest(target=name))


async def is_forgotten(world: World) -> bool:
    try:
        await target(world)
    except NotFound:
        return True
    return False


@pytest.mark.parametrize("image", ["v4", "v5"])
async def test_a_server_boots_decommissions_and_leaves_no_process(launcher: Launcher, world: World, image: str) -> None:
    await launcher.server(image=image)
    server = await launcher.operational()
    assert outcomes(server) == {"hello": "succeeded"}
    assert processes.of_machine(server.current.id)
    await launcher.terminate()
    await launcher.becomes("TERMINATED")
    assert await launcher.history() == WHOLE_LIFE
    assert await world.run_names() == ["hello", "bye"]
    assert not processes.of_machine(server.current.id)


@pytest.mark.parametrize(("image", "line"), [("v4", "ssh"), ("v5", "agent")])
async def test_the_executor_knows_the_machine_while_it_lives(
    launcher: Launcher, world: World, image: str, line: str
) -> None:
    await launcher.server(image=image, tags=["role=web"])
    server = await launcher.operational()
    known: targets_pb2.Target = await eventually(partial(in_state, world, "operational"))
    assert (known.id, known.name, known.WhichOneof("line")) == (server.current.id, "web-1", line)
    assert list(known.tags) == ["role=web"]
    assert not known.ssh.host_key_learned
    await launcher.terminate()
    await launcher.becomes("TERMINATED")
    gone: bool = await eventually(partial(is_forgotten, world))
    assert gone


async def in_state(world: World, state: str) -> targets_pb2.Target:
    known = await target(world)
    assert known.state == state
    return known


async def test_the_agent_of_a_terminated_server_is_revoked(launcher: Launcher, world: World) -> None:
    await launcher.server(image="v5")
    agent_id = (await launcher.operational()).current.agent_id
    await launcher.terminate()
    await launcher.becomes("TERMINATED")
    agent = await world.gateway.fleet.GetAgent(fleet_pb2.GetAgentRequest(agent_id=agent_id))
    assert agent.state == fleet_pb2.Agent.STATE_REVOKED


@pytest.mark.parametrize("image", ["v4", "v5"])
async def test_what_scripts_leave_behind_ends_with_the_machine(launcher: Launcher, world: World, image: str) -> None:
    await world.script("#!/bin/sh\nsetsid sleep 1003 >/dev/null 2>&1 </dev/null &\n", "leaver")
    await launcher.template(boot=["leaver"])
    await launcher.server(image=image)
    machine = (await launcher.operational()).current.id
    assert b"sleep\x001003\x00" in {command(pid.pid) for pid in processes.of_machine(machine)}
    await launcher.terminate()
    await launcher.becomes("TERMINATED")
    assert not processes.of_machine(machine)


async def test_a_machine_that_vanished_is_terminated_with_that_cause(launcher: Launcher) -> None:
    await launcher.server()
    server = await launcher.operational()
    processes.end_machine(server.current.id)
    gone = await launcher.becomes("TERMINATED")
    assert "vanished" in gone.current.cause
    assert gone.current.HasField("terminate_time")


async def test_a_repeated_launch_request_launches_nothing_and_is_of_one_server(launcher: Launcher) -> None:
    request_id = str(uuid.uuid4())
    await launcher.server()
    await launcher.server("web-2")
    server = await launcher.operational(request_id=request_id)
    again = await launcher.launch(request_id=request_id)
    assert (again.current.id, state_of(again)) == (server.current.id, "OPERATIONAL")
    with pytest.raises(InvalidArgument):
        await launcher.launch("web-2", request_id=request_id)
    with pytest.raises(IllegalTransition):
        await launcher.launch()


async def test_a_repeated_terminate_request_leaves_the_machine_of_a_later_launch_alone(launcher: Launcher) -> None:
    await launcher.server()
    await launcher.operational()
    await launcher.terminate(request_id="end it")
    await launcher.becomes("TERMINATED")
    await launcher.operational()
    assert state_of(await launcher.terminate(request_id="end it")) == "OPERATIONAL"
    with pytest.raises(InvalidArgument, match="used before"):
        await launcher.force_operational(request_id="end it")


async def test_a_terminate_of_what_is_ending_or_has_ended_changes_nothing(launcher: Launcher, world: World) -> None:
    await world.script("#!/bin/sh\nsleep 0.5\n", "bye")
    await launcher.server()
    with pytest.raises(IllegalTransition, match="it is inactive"):
        await launcher.terminate()
    await launcher.operational()
    assert [state_of(await launcher.terminate()) for _ in range(2)] == ["DECOMMISSIONING"] * 2
    await launcher.becomes("TERMINATED")
    assert state_of(await launcher.terminate()) == "TERMINATED"
    assert await launcher.history() == WHOLE_LIFE


async def test_a_server_says_whether_it_moves_and_whether_it_has_a_machine(launcher: Launcher) -> None:
    defined = await launcher.server()
    launched = await launcher.launch()
    runs = await launcher.becomes("OPERATIONAL")
    await launcher.terminate()
    gone = await launcher.becomes("TERMINATED")
    told = [(each.moving, each.has_machine) for each in (defined, launched, runs, gone)]
    assert told == [(False, False), (True, True), (False, True), (False, False)]


async def test_a_relaunch_makes_another_machine_from_the_next_definition(launcher: Launcher) -> None:
    await launcher.server()
    first = await launcher.operational()
    await launcher.server(image="v5", tags=["role=new"])
    assert (await launcher.get()).generation == first.generation
    await launcher.terminate()
    await launcher.becomes("TERMINATED")
    second = await launcher.operational()
    assert second.current.id != first.current.id
    assert (second.generation, second.current.address) == (5, "")
    assert await launcher.history() == [*WHOLE_LIFE, "PENDING", "BOOTING", "OPERATIONAL"]


async def test_a_server_can_be_terminated_while_it_boots(launcher: Launcher, world: World) -> None:
    await world.script("#!/bin/sh\nsleep 1000\n", "slow")
    await launcher.template(boot=["slow"], decommission=["bye"])
    await launcher.server()
    machine = (await launcher.launch()).current.id
    await until_step_is(launcher, "running")
    await launcher.terminate()
    await launcher.becomes("TERMINATED")
    assert not processes.of_machine(machine)
    assert outcomes(await launcher.get()) == {"slow": "canceled"}


async def test_a_script_whose_machine_vanished_does_not_run_for_ever(launcher: Launcher, world: World) -> None:
    await world.script("#!/bin/sh\nsleep 1000\n", "slow")
    await launcher.template(boot=["slow", "hello"])
    await launcher.server()
    machine = (await launcher.launch()).current.id
    await until_step_is(launcher, "running")
    processes.end_machine(machine)
    await launcher.becomes("TERMINATED")
    await until_step_is(launcher, "canceled")
    assert outcomes(await launcher.get()) == {"slow": "canceled", "hello": "waiting"}


async def test_a_machine_is_told_as_it_was_launched_whatever_the_definition_says_by_now(launcher: Launcher) -> None:
    await launcher.server(tags=["role=web"])
    await launcher.operational()
    await launcher.group(443, name="other")
    await launcher.template("empty")
    it = (await launcher.server(image="v5", template="empty", security_groups=["other"], tags=["role=new"])).current
    assert (it.template, it.image, it.instance_type) == ("web", "v4", "local-small")
    assert (it.cloud_key_name, list(it.security_groups), list(it.tags)) == ("launch-key", ["open"], ["role=web"])


async def until_step_is(launcher: Launcher, outcome: str) -> None:
    """Wait until that became of the first step."""

    async def check() -> bool:
        return [word(step) for step in (await launcher.get()).current.steps[:1]] == [outcome]

    is_so: bool = await eventually(check)
    assert is_so


async def test_inputs_are_frozen_with_their_origin_and_reach_the_script(launcher: Launcher, world: World) -> None:
    seen = world.folder / "seen"
    await world.script(f"{HEADER}\necho $A $B $C > {seen}\n", "asks")
    await launcher.template(boot=["asks"], inputs={"A": "text:template", "B": "text:template"})
    await launcher.server(inputs={"B": "text:server", "OTHER": "text:x"})
    server = await launcher.operational(inputs={"C": "text:launch"})
    assert seen.read_text() == "template server launch\n"
    await launcher.server(inputs={"B": "text:changed"})
    frozen = (await launcher.get()).current.inputs
    assert list(frozen) == list(server.current.inputs)
    assert {each.name: (each.value, each.origin) for each in frozen} == {
        "A": ("text:template", servers_pb2.Input.ORIGIN_TEMPLATE),
        "B": ("text:server", servers_pb2.Input.ORIGIN_SERVER),
        "C": ("text:launch", servers_pb2.Input.ORIGIN_LAUNCH),
        "OTHER": ("text:x", servers_pb2.Input.ORIGIN_SERVER),
    }


async def test_watchers_are_told_every_state_of_every_server_they_follow(launcher: Launcher) -> None:
    await launcher.server()
    await launcher.server("web-2", image="v5")
    seen: dict[str, list[str]] = {}
    watch = launcher.servers.WatchServers(servers_pb2.WatchServersRequest(), timeout=60)
    await launcher.launch()
    await launcher.launch("web-2")
    async for change in watch:
        told = seen.setdefault(change.server.name, [])
        told += [servers_pb2.ServerState.Name(each.to).removeprefix("SERVER_STATE_") for each in change.transitions]
        if state_of(change.server) == "OPERATIONAL" and told[-1] == "OPERATIONAL":
            await launcher.terminate(change.server.name)
        if [each[-1:] for each in seen.values()] == [["TERMINATED"], ["TERMINATED"]]:
            break
    assert seen == {"web-1": WHOLE_LIFE, "web-2": WHOLE_LIFE}


async def test_a_watch_that_comes_late_is_told_the_present_machine_s_past(launcher: Launcher) -> None:
    await launcher.server()
    await launcher.operational()
    watch = launcher.servers.WatchServers(servers_pb2.WatchServersRequest(servers=["web-1"]), timeout=30)
    async for change in watch:
        assert [each.to for each in change.transitions] == [2, 3, 4]
        break
    with pytest.raises(NotFound):
        async for _ in launcher.servers.WatchServers(servers_pb2.WatchServersRequest(servers=["nobody"])):
            pass


HEADER = """#!/bin/sh
# ---
# RightScript Name: asks
# Inputs:
#   A: {Required: true}
#   B: {Required: true}
#   C: {Required: true}
# ..."""


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
