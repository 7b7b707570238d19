"""A machine is somebody's business, and has its price, until its cloud says that it is gone."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from tests.service.launcher.conftest import fill
from tests.service.launcher.test_crashes import ByHand, Faulty, bodies, by_hand
from tests.service.launcher.world import Launcher, Server, World, state_of
from twinline_kit import clock
from twinline_kit.errors import Unavailable
from twinline_launcher import phases
from twinline_launcher.errors import IllegalTransition
from twinline_launcher.models import Generation
from twinline_launcher.providers import LaunchSpec, Machine
from twinline_launcher.providers.local import LocalCloud, processes
from twinline_launcher.states import Event, State


class Slow(Faulty):
    """The real cloud, some answers of which are lost, and which needs a while for what it is asked."""

    def __init__(self, cloud: LocalCloud) -> None:
        super().__init__(cloud)
        self.dies = False
        self.loses_launches = False
        self.failure: Exception | None = None
        self.is_stuck = False
        self.is_blind = False
        """It does not find machines that it has."""
        self.is_ending = False
        """It was told to end machines, and has not begun to."""
        self.is_deaf = False
        """It never answers who tells it to end machines."""

    async def launch(self, spec: LaunchSpec) -> Machine:
        await self._answers()
        machine = await super().launch(spec)
        if self.loses_launches:
            raise Unavailable("the answer was lost")
        return machine

    async def describe(self, tokens: Collection[str]) -> Mapping[str, Machine]:
        await self._answers()
        return {} if self.is_blind else await super().describe(tokens)

    async def terminate(self, token: str) -> Machine:
        await self._answers()
        if self.is_deaf:
            await asyncio.Event().wait()
        if self.is_ending:
            return (await self._cloud.describe([token]))[token]
        return await super().terminate(token)

    async def _answers(self) -> None:
        if self.failure:
            raise self.failure
        if self.is_stuck:
            await asyncio.Event().wait()


@dataclass
class Asked:
    """A machine that a launcher asked for, looked at by hand."""

    launcher: Launcher
    hand: ByHand
    cloud: Slow
    id: str

    async def look(self) -> State:
        return State((await self.hand.look(self.id)).state)

    async def finish_boot(self) -> None:
        """Let it be operational, as if its boot list had run."""
        await self.hand.look(self.id)
        self.hand.store.apply(self.id, Event.FINISH_BOOT, at=clock.now(), cause="")

    def is_left(self) -> bool:
        """Whether nobody will look at it again by themselves."""
        return self.hand.pause is None

    async def server(self) -> Server:
        return await self.launcher.get()

    async def is_told(self) -> bool:
        return (await self.server()).has_machine

    async def billed(self) -> float:
        return (await self.server()).current.cost.billed.ToTimedelta().total_seconds()


@asynccontextmanager
async def asked(
    world: World, image: str = "v4", decommission: Sequence[str] = (), **settings: Any
) -> AsyncIterator[Asked]:
    async with world.launcher(concurrency=0) as launcher, by_hand(world, Slow, **settings) as hand:
        assert isinstance(hand.cloud, Slow)
        await fill(launcher)
        await launcher.template(boot=["hello"], decommission=decommission)
        await launcher.server(image=image)
        yield Asked(launcher, hand, hand.cloud, (await launcher.launch()).current.id)


@asynccontextmanager
async def expired(world: World, image: str = "v4") -> AsyncIterator[Asked]:
    """A machine that runs, and of which the launcher knows only that its launch took too long."""
    async with asked(world, image, pending_limit=0.0) as machine:
        machine.cloud.loses_launches = True
        assert await machine.look() is State.ERROR
        assert bodies(machine.id) == 1
        yield machine


@pytest.mark.parametrize("image", ["v4", "v5"])
async def test_what_a_failed_launch_left_is_told_and_billed_until_its_cloud_says_that_it_is_gone(
    world: World, image: str
) -> None:
    async with expired(world, image) as machine:
        assert await machine.is_told()
        machine.cloud.is_ending = True
        assert await machine.look() is State.ERROR
        assert (await machine.is_told(), await machine.billed() > 0, machine.is_left()) == (True, True, False)
        machine.cloud.is_ending = False
        assert await machine.look() is State.ERROR
        assert (await machine.is_told(), bodies(machine.id), machine.is_left()) == (False, 0, True)
        assert 0 < await machine.billed() == await machine.billed()


async def test_what_a_failed_launch_left_is_ended_once_its_cloud_answers_again(world: World) -> None:
    async with expired(world) as machine:
        machine.cloud.failure = Unavailable("the cloud is away")
        with pytest.raises(Unavailable):
            await machine.look()
        assert await machine.is_told()
        machine.cloud.failure = None
        await machine.look()
        assert (await machine.is_told(), bodies(machine.id)) == (False, 0)
        assert await machine.billed() > 0


async def test_a_launch_that_its_cloud_refused_has_no_machine_and_no_price(world: World) -> None:
    async with asked(world) as machine:
        machine.hand.store.apply(machine.id, Event.REFUSE, at=clock.now(), cause="")
        await machine.look()
        assert (await machine.is_told(), await machine.billed()) == (False, 0)


async def test_a_server_whose_launch_failed_has_no_second_machine_before_the_first_is_gone(world: World) -> None:
    async with expired(world) as machine:
        machine.cloud.is_ending = True
        await machine.look()
        with pytest.raises(IllegalTransition):
            await machine.launcher.launch()
        await machine.launcher.terminate()
        assert await machine.look() is State.SHUTTING_DOWN
        with pytest.raises(IllegalTransition):
            await machine.launcher.launch()
        assert (await machine.is_told(), await machine.billed() > 0) == (True, True)
        machine.cloud.is_ending = False
        assert await machine.look() is State.TERMINATED
        assert not processes.of_machine(machine.id)
        assert state_of(await machine.launcher.launch()) == "PENDING"


async def test_a_launch_that_is_late_makes_no_machine_for_a_server_that_gave_it_up(world: World) -> None:
    async with asked(world) as machine:
        given_up = machine.hand.store.apply(machine.id, Event.EXPIRE, at=clock.now(), cause="")
        await machine.look()
        late = LaunchSpec(machine.id, "web-1", Generation.V4, "v4", "local-small", given_up.public_key)
        with suppress(Unavailable):
            await machine.cloud.launch(late)
        assert bodies(machine.id) == 0


async def test_a_launch_that_fails_in_whatever_way_is_given_up_in_time(world: World) -> None:
    async with asked(world, pending_limit=0.0) as machine:
        machine.cloud.failure = ValueError("a bug")
        assert await machine.look() is State.ERROR


async def test_a_cloud_that_never_answers_a_launch_is_given_up_in_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases, "ANSWER", 0.2)
    async with asked(world, pending_limit=0.0) as machine:
        machine.cloud.is_stuck = True
        assert await machine.look() is State.ERROR


@pytest.mark.parametrize("failure", [ValueError("a bug"), None])
async def test_a_decommission_ends_in_time_whatever_keeps_its_cloud_from_telling_of_the_machine(
    world: World, failure: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asked(world, decommission_limit_v4=1e-6, limit_grace=0.0, decommission=["bye"]) as machine:
        await machine.finish_boot()
        await machine.launcher.terminate()
        monkeypatch.setattr(phases, "ANSWER", 0.2)
        machine.cloud.failure, machine.cloud.is_stuck = failure, failure is None
        assert await machine.look() is State.STRANDED_IN_DECOMMISSIONING


async def test_a_decommission_ends_in_time_though_its_cloud_finds_no_machine_and_is_told_to_end_it_in_vain(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asked(world, decommission_limit_v4=1e-6, limit_grace=0.0, decommission=["bye"]) as machine:
        await machine.finish_boot()
        await machine.launcher.terminate()
        monkeypatch.setattr(phases, "ANSWER", 0.2)
        machine.cloud.is_blind = machine.cloud.is_deaf = True
        async with asyncio.timeout(20):
            assert await machine.look() is State.STRANDED_IN_DECOMMISSIONING


async def test_a_machine_that_its_cloud_does_not_find_is_not_gone_before_its_cloud_says_so(world: World) -> None:
    async with asked(world) as machine:
        assert await machine.look() is State.BOOTING
        machine.cloud.is_blind = machine.cloud.is_ending = True
        assert await machine.look() is State.BOOTING
        assert (bodies(machine.id), await machine.is_told()) == (1, True)
        machine.cloud.is_ending = False
        assert await machine.look() is State.TERMINATED
        assert (bodies(machine.id), await machine.is_told()) == (0, False)


async def test_a_machine_with_nothing_to_run_at_its_end_is_ended_while_the_executor_is_away(world: World) -> None:
    async with asked(world, executor_address="127.0.0.1:1") as machine:
        await machine.finish_boot()
        await machine.launcher.terminate()
        assert await machine.look() is State.SHUTTING_DOWN
        await machine.look()
        assert bodies(machine.id) == 0
