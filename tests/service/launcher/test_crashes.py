"""A launcher that dies at any point: the next one goes on, and nothing happens twice."""

import contextlib
import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from tests.peers.eventually import eventually
from tests.service.launcher.conftest import fill
from tests.service.launcher.world import Launcher, World, outcomes, state_of
from twinline_kit import clock, db
from twinline_kit.client import mesh_channel
from twinline_kit.errors import Violation
from twinline_launcher import cost
from twinline_launcher.agents import Agents
from twinline_launcher.changes import Changes
from twinline_launcher.lists import Lists
from twinline_launcher.models import Generation, Instance
from twinline_launcher.phases import Phases
from twinline_launcher.providers import InstanceType, LaunchSpec, Machine
from twinline_launcher.providers.local import LocalCloud, processes
from twinline_launcher.runs import Runs
from twinline_launcher.settings import Settings
from twinline_launcher.states import Event, State
from twinline_launcher.store.instances import InstanceStore
from twinline_launcher.targets import Targets
from twinline_launcher.turns import Turn


class Died(BaseException):
    """The process ended here."""


class Faulty:
    """The real cloud, which does what it is asked; whoever asked dies before the answer."""

    def __init__(self, cloud: LocalCloud) -> None:
        self._cloud = cloud
        self.name = cloud.name
        self.instance_types: Sequence[InstanceType] = cloud.instance_types
        self.dies = True

    async def obstacles(self, generation: Generation) -> Sequence[Violation]:
        return await self._cloud.obstacles(generation)

    async def launch(self, spec: LaunchSpec) -> Machine:
        return self._answer(await self._cloud.launch(spec))

    async def describe(self, tokens: Collection[str]) -> Mapping[str, Machine]:
        return await self._cloud.describe(tokens)

    async def terminate(self, token: str) -> Machine:
        return self._answer(await self._cloud.terminate(token))

    async def apply_group(self, group: str, open_ports: Sequence[int]) -> None:
        await self._cloud.apply_group(group, open_ports)

    def _answer(self, machine: Machine) -> Machine:
        if self.dies:
            raise Died
        return machine


class ByHand:
    """A reconciler whose every look is asked for."""

    def __init__(self, world: World, settings: Settings, cloud: Faulty, channels: list[grpc.aio.Channel]) -> None:
        self.cloud = cloud
        self.pause: float | None = 0
        """What the last look said: in how many seconds to look again, None for never."""
        executor, gateway = channels
        self._engine = db.open(settings.database_url)
        self.store = InstanceStore(self._engine)
        lists = Lists(Runs(executor), settings)
        self._phases = Phases(
            {cloud.name: cloud},
            Targets(executor),
            Agents(gateway),
            lists,
            settings,
        )

    async def look(self, machine: str) -> Instance:
        turn = Turn(self.store.get(machine), self.store, Changes(), clock.now)
        self.pause = await self._phases.act(turn)
        return turn.instance

    def close(self) -> None:
        self._engine.dispose()


@asynccontextmanager
async def by_hand(world: World, faulty: type[Faulty] = Faulty, **more: Any) -> AsyncIterator[ByHand]:
    settings = world.settings(**more)
    identity, local = settings.identity(), LocalCloud(world.folder / "cloud", clock=clock.now)
    async with (
        mesh_channel(settings.executor_address, identity) as executor,
        mesh_channel(settings.gateway_address, identity) as gateway,
    ):
        hand = ByHand(world, settings, faulty(local), [executor, gateway])
        try:
            yield hand
        finally:
            hand.close()
            local.close()


async def asleep(world: World, image: str) -> str:
    """A machine that was asked for and that nobody looks after."""
    async with world.launcher(concurrency=0) as launcher:
        await fill(launcher)
        await launcher.server(image=image)
        return (await launcher.launch()).current.id


def bodies(machine: str) -> int:
    return sum(b"twinline-machine" in command(each.pid) for each in processes.of_machine(machine))


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("image", ["v4", "v5"])
async def test_a_death_between_the_cloud_s_answer_and_the_note_makes_one_machine(world: World, image: str) -> None:
    machine = await asleep(world, image)
    async with by_hand(world) as hand:
        with pytest.raises(Died):
            await hand.look(machine)
        assert hand.store.get(machine).state == State.PENDING
        assert (await hand.look(machine)).state == State.BOOTING
    assert bodies(machine) == 1
    async with world.launcher() as launcher:
        assert outcomes(await launcher.becomes("OPERATIONAL")) == {"hello": "succeeded"}


async def test_a_death_between_the_end_of_the_machine_and_the_note_ends_it_once(world: World) -> None:
    machine = await asleep(world, "v4")
    async with by_hand(world) as hand:
        hand.cloud.dies = False
        await hand.look(machine)
        hand.store.apply(machine, Event.TERMINATE, at=clock.now(), cause="")
        hand.cloud.dies = True
        with pytest.raises(Died):
            await hand.look(machine)
        assert not processes.of_machine(machine)
        hand.cloud.dies = False
        ended = await hand.look(machine)
    assert (ended.state, ended.terminate_time is not None) == (State.TERMINATED, True)


@pytest.mark.parametrize("image", ["v4", "v5"])
async def test_a_launch_that_went_wrong_after_a_lost_answer_leaves_no_machine_and_tells_what_it_cost(
    world: World, image: str
) -> None:
    machine = await asleep(world, image)
    async with by_hand(world) as hand:
        with pytest.raises(Died):
            await hand.look(machine)
        assert bodies(machine) == 1
        hand.store.apply(machine, Event.EXPIRE, at=clock.now(), cause="the cloud could not be asked in time")
        hand.cloud.dies = False
        ended = await hand.look(machine)
        assert not processes.of_machine(machine)
        costs = [cost.of(ended, [], at=clock.now() + timedelta(hours=hours)).billed for hours in (0, 1)]
        assert costs[0] == costs[1] > timedelta()
        assert await hand.look(machine) == ended


async def test_a_boot_goes_on_after_the_launcher_was_stopped_and_runs_each_script_once(world: World) -> None:
    count = world.folder / "count"
    await world.script(f"#!/bin/sh\necho x >> {count}\nsleep 1\n", "slow")
    async with world.launcher() as launcher:
        await fill(launcher)
        await launcher.template(boot=["hello", "slow", "bye"])
        await launcher.server()
        await launcher.launch()
        await eventually(count.exists)
    async with world.launcher() as launcher:
        await launcher.becomes("OPERATIONAL")
    assert count.read_text() == "x\n"
    assert await world.run_names() == ["hello", "slow", "bye"]


@pytest.mark.parametrize("image", ["v4", "v5"])
async def test_a_launcher_killed_again_and_again_brings_the_server_through_its_life_once(
    world: World, image: str
) -> None:
    count = world.folder / "count"
    await world.script(f"#!/bin/sh\necho $0 >> {count}\nsleep 0.2\n", "step")
    async with world.launcher(concurrency=0) as launcher:
        await fill(launcher)
        await launcher.template(boot=["step", "hello"], decommission=["step"])
        await launcher.server(image=image)
        machine = (await launcher.launch()).current.id
        await killing(world, launcher, until="OPERATIONAL")
        assert bodies(machine) == 1
        await launcher.terminate()
        await killing(world, launcher, until="TERMINATED")
        assert (await launcher.history())[-4:] == ["OPERATIONAL", "DECOMMISSIONING", "SHUTTING_DOWN", "TERMINATED"]
    assert not processes.of_machine(machine)
    assert len(count.read_text().splitlines()) == 2
    assert await world.run_names() == ["step", "hello", "step"]


async def killing(world: World, launcher: Launcher, *, until: str) -> None:
    """Start launchers as processes and kill -9 each after a random while, until the server is there."""
    chance = random.Random(7)
    for _ in range(40):
        async with world.process(world.settings(lease=0.3)):
            with contextlib.suppress(AssertionError):
                await launcher.becomes(until, within=chance.uniform(0.2, 1.2))
        if state_of(await launcher.get()) == until:
            return
    raise AssertionError(f"the server did not become {until} in 40 lives")
