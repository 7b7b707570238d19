"""Who looks after which machine, when the database or the executor fails a launcher."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from tests.peers.eventually import eventually
from tests.peers.relay import running_relay
from tests.service.launcher.conftest import fill
from tests.service.launcher.test_crashes import asleep
from tests.service.launcher.world import World
from twinline_kit import clock, db
from twinline_kit.client import mesh_channel
from twinline_kit.errors import Unavailable
from twinline_launcher.agents import Agents
from twinline_launcher.changes import Changes
from twinline_launcher.lists import Lists
from twinline_launcher.phases import Phases
from twinline_launcher.providers import LaunchSpec, Machine
from twinline_launcher.providers.local import LocalCloud, processes
from twinline_launcher.reconciler import Reconciler
from twinline_launcher.runs import Runs
from twinline_launcher.states import State
from twinline_launcher.store.instances import InstanceStore, Lease
from twinline_launcher.targets import Targets

ANOTHER = "UPDATE instances SET lease_owner = 'another', lease_until = '2999-01-01 00:00:00.000000'"


def executed(database: Path, statement: str) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        return connection.execute(statement).fetchall()


@contextmanager
def refusing_to_give_back(database: Path, machine: str) -> Iterator[None]:
    """The database refuses to write the end of this machine's lease, as it would on a full disk."""
    executed(
        database,
        f"CREATE TRIGGER full BEFORE UPDATE OF lease_owner ON instances WHEN OLD.id = '{machine}' "
        "AND OLD.lease_owner <> '' AND NEW.lease_owner = '' BEGIN SELECT RAISE(ABORT, 'disk is full'); END",
    )
    try:
        yield
    finally:
        executed(database, "DROP TRIGGER full")


def is_held(database: Path, server: str) -> bool:
    return executed(database, f"SELECT lease_owner FROM instances WHERE server_name = '{server}'") != [("",)]


def is_not_given_back(caplog: pytest.LogCaptureFixture, machine: str) -> bool:
    found = [each for each in caplog.records if each.message == "machine not given back"]
    return any(vars(each)["instance"] == machine for each in found)


async def test_a_machine_that_could_not_be_given_back_is_looked_at_again_while_another_one_is_held(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    database = world.folder / "launcher.db"
    executor_port = int(world.executor.bound.mesh.rpartition(":")[2])
    await world.script("#!/bin/sh\nsleep 1000\n", "slow")
    async with (
        running_relay(executor_port) as relay,
        world.launcher(executor_address=f"127.0.0.1:{relay.port}") as launcher,
    ):
        await fill(launcher)
        await launcher.server()
        machine = (await launcher.operational()).current.id
        await launcher.template(boot=["slow"])
        await launcher.server("busy")
        await launcher.launch("busy")
        await launcher.becomes("BOOTING", "busy")
        relay.stall()  # a look at `busy` waits for the executor, and all that time its lease is renewed
        await eventually(partial(is_held, database, "busy"))
        executed(database, f"UPDATE instances SET due_time = state_time WHERE id = '{machine}'")
        with refusing_to_give_back(database, machine):
            await eventually(partial(is_not_given_back, caplog, machine))
        processes.end_machine(machine)
        await launcher.becomes("TERMINATED", within=10)
        relay.flow()


class Slow(LocalCloud):
    """The real cloud, which takes its time over a launch."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, clock=clock.now)
        self.go = asyncio.Event()
        self.launches = 0
        self.given_up = 0

    async def launch(self, spec: LaunchSpec) -> Machine:
        self.launches += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        return await super().launch(spec)


class Late(InstanceStore):
    """The real store, whose renewals fail."""

    claims = 0

    def claim(self, *arguments: object, **more: object) -> Lease:
        self.claims += 1
        return super().claim(*arguments, **more)  # type: ignore[arg-type]

    def renew(self, owner: str, instances: Collection[str], *, until: datetime) -> Sequence[str]:
        raise Unavailable("the database answers too late")


@asynccontextmanager
async def reconciling(world: World, store: type[InstanceStore]) -> AsyncIterator[tuple[InstanceStore, Slow]]:
    """A reconciler over the world's database and a slow cloud."""
    settings = world.settings(lease=0.3)
    identity, cloud, engine = settings.identity(), Slow(world.folder / "cloud"), db.open(settings.database_url)
    async with (
        mesh_channel(settings.executor_address, identity) as executor,
        mesh_channel(settings.gateway_address, identity) as gateway,
    ):
        lists = Lists(Runs(executor), settings)
        phases = Phases({cloud.name: cloud}, Targets(executor), Agents(gateway), lists, settings)
        kept = store(engine)
        work = asyncio.ensure_future(Reconciler(kept, phases, settings, changes=Changes(), clock=clock.now).run())
        try:
            yield kept, cloud
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
            cloud.close()
            engine.dispose()


async def test_a_machine_whose_lease_runs_out_during_its_launch_is_looked_at_once_at_a_time(world: World) -> None:
    machine = await asleep(world, "v5")
    async with reconciling(world, Late) as (store, cloud):
        assert isinstance(store, Late)
        await eventually(lambda: cloud.launches == 1)
        await eventually(lambda: (store.get(machine).lease_until or clock.now()) < clock.now())
        claims = store.claims
        await eventually(lambda: store.claims > claims + 3)
        assert cloud.launches == 1
        cloud.go.set()
        await eventually(lambda: store.get(machine).state == State.OPERATIONAL, within=30)
    assert cloud.launches == 1


async def test_work_at_a_machine_that_another_replica_took_over_is_given_up(world: World) -> None:
    await asleep(world, "v5")
    async with reconciling(world, InstanceStore) as (_, cloud):
        await eventually(lambda: cloud.launches == 1)
        executed(world.folder / "launcher.db", ANOTHER)
        await eventually(lambda: cloud.given_up == 1)
    assert cloud.launches == 1
