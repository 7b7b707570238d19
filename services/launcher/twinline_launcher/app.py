"""Puts the launcher together."""

from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import grpc.aio
import sqlalchemy as sa

from twinline.launcher.v1 import catalog_pb2_grpc, servers_pb2_grpc
from twinline_kit import clock, db
from twinline_kit.app import App
from twinline_kit.client import mesh_channel
from twinline_kit.server import Service
from twinline_kit.verifier import KeysVerifier
from twinline_launcher import access
from twinline_launcher.agents import Agents
from twinline_launcher.changes import Changes
from twinline_launcher.groups import Groups
from twinline_launcher.lists import Lists
from twinline_launcher.phases import Phases
from twinline_launcher.preflight import Preflight
from twinline_launcher.providers import Clouds
from twinline_launcher.providers.local import LocalCloud
from twinline_launcher.reconciler import Reconciler
from twinline_launcher.rounds import Rounds
from twinline_launcher.runs import Runs
from twinline_launcher.service.catalog import CatalogService
from twinline_launcher.service.servers import ServerService
from twinline_launcher.settings import Settings
from twinline_launcher.store.catalog import CatalogStore
from twinline_launcher.store.instances import InstanceStore
from twinline_launcher.store.servers import ServerStore
from twinline_launcher.targets import Targets


@asynccontextmanager
async def build(settings: Settings) -> AsyncIterator[App]:
    """Yield the launcher, ready to register. Main, suite and tests all start here."""
    async with AsyncExitStack() as stack:
        engine = db.open(settings.database_url)
        stack.callback(engine.dispose)
        await to_thread(db.migrate, engine, "twinline_launcher")
        identity = settings.identity()
        keys, executor, gateway = [
            await stack.enter_async_context(mesh_channel(address, identity))
            for address in (settings.keys_address, settings.executor_address, settings.gateway_address)
        ]
        yield _app(engine, settings, _clouds(settings, stack), keys, executor, gateway)


def _clouds(settings: Settings, stack: AsyncExitStack) -> Clouds:
    if settings.local_cloud_folder is None:
        return {}
    local = LocalCloud(settings.local_cloud_folder, clock=clock.now, sshd_program=settings.sshd_program)
    stack.callback(local.close)
    return {local.name: local}


def _app(
    engine: sa.Engine,
    settings: Settings,
    clouds: Clouds,
    keys: grpc.aio.Channel,
    executor: grpc.aio.Channel,
    gateway: grpc.aio.Channel,
) -> App:
    changes = Changes()
    catalog, servers, instances = CatalogStore(engine), ServerStore(engine), InstanceStore(engine)
    preflight = Preflight(catalog, clouds, keys=keys, executor=executor)
    phases = Phases(clouds, Targets(executor), Agents(gateway), Lists(Runs(executor), settings), settings)
    reconciler = Reconciler(instances, phases, settings, changes=changes, clock=clock.now)
    rounds = Rounds(instances, phases, clouds, every=settings.cloud_check, changes=changes, clock=clock.now)
    services = [
        Service(
            "twinline.launcher.v1.ServerService",
            partial(
                servers_pb2_grpc.add_ServerServiceServicer_to_server,
                ServerService(servers, instances, catalog, preflight, changes=changes, clock=clock.now),
            ),
            access.SERVERS,
        ),
        Service(
            "twinline.launcher.v1.CatalogService",
            partial(
                catalog_pb2_grpc.add_CatalogServiceServicer_to_server,
                CatalogService(catalog, clouds, executor, clock.now),
            ),
            access.CATALOG,
        ),
    ]
    return App(services, KeysVerifier(keys), [reconciler.run, rounds.run, Groups(catalog, clouds).run])
