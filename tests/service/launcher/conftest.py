"""Launchers with everything below them."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.peers.authority import Certificates
from tests.peers.serving import Served
from tests.service.launcher.world import Launcher, World, running_world
from twinline_kit import db
from twinline_launcher.store.instances import InstanceStore
from twinline_launcher.store.servers import ServerStore


@pytest.fixture
async def world(authority: Certificates, keys: Served, tmp_path: Path) -> AsyncIterator[World]:
    """Keys, a gateway and an executor, with a key and two scripts."""
    async with running_world(authority, tmp_path, keys) as world:
        yield world


@pytest.fixture
async def launcher(world: World) -> AsyncIterator[Launcher]:
    """A launcher with an image of each generation, an open group and a template of two scripts."""
    async with world.launcher() as launcher:
        await fill(launcher)
        yield launcher


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """A migrated database."""
    engine = db.open(database_url)
    db.migrate(engine, "twinline_launcher")
    yield engine
    engine.dispose()


@pytest.fixture
def servers(engine: sa.Engine) -> ServerStore:
    """Its servers."""
    return ServerStore(engine)


@pytest.fixture
def instances(engine: sa.Engine) -> InstanceStore:
    """Its machines."""
    return InstanceStore(engine)


async def fill(launcher: Launcher) -> None:
    """What most servers are made from."""
    await launcher.image("v4", 4)
    await launcher.image("v5", 5)
    await launcher.group(22)
    await launcher.template(boot=["hello"], decommission=["bye"])
