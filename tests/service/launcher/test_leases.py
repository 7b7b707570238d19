"""Who looks after which machine, when the database or the executor fails a launcher."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.peers.eventually import eventually
from tests.peers.relay import running_relay
from tests.service.launcher.conftest import fill
from tests.service.launcher.world import World
from twinline_launcher.providers.local import processes


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
