"""Puts the agent gateway together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import grpc.aio
import sqlalchemy as sa

from twinline.agent_gateway.v1 import agents_pb2_grpc, fleet_pb2_grpc
from twinline_agent_gateway import access, shepherd
from twinline_agent_gateway.enrollments import Enrollments, load_key
from twinline_agent_gateway.peers import Peers
from twinline_agent_gateway.presence import Presence
from twinline_agent_gateway.router import Router
from twinline_agent_gateway.service.agents import AgentService
from twinline_agent_gateway.service.fleet import FleetService
from twinline_agent_gateway.settings import Settings
from twinline_agent_gateway.shepherd import Shepherd
from twinline_agent_gateway.store import AgentStore, PresenceStore
from twinline_agent_gateway.streams import Writers
from twinline_kit import clock, db
from twinline_kit.app import App
from twinline_kit.client import mesh_channel
from twinline_kit.ids import new_id
from twinline_kit.server import Service
from twinline_kit.verifier import KeysVerifier


@asynccontextmanager
async def build(settings: Settings) -> AsyncIterator[App]:
    """Yield the service, ready to register. Main, suite and tests all start here."""
    engine = db.open(settings.database_url)
    replica = settings.replica or new_id("gateway")
    try:
        await asyncio.to_thread(db.migrate, engine, "twinline_agent_gateway")
        presence = Presence(
            PresenceStore(engine),
            replica=replica,
            address=settings.advertised_mesh_address or settings.mesh_listen,
            tick=settings.tick,
            limit=settings.replica_limit,
            clock=clock.now,
        )
        await presence.join()
        try:
            async with mesh_channel(settings.keys_address, settings.identity()) as keys:
                yield _app(settings, replica, engine, presence, keys)
        finally:
            await presence.leave()
    finally:
        engine.dispose()


def _app(settings: Settings, replica: str, engine: sa.Engine, presence: Presence, keys: grpc.aio.Channel) -> App:
    store = AgentStore(engine)
    key, lifetime = load_key(settings.enrollment_key_file), timedelta(seconds=settings.certificate_lifetime)
    enrollments = Enrollments(store, keys, key=key, lifetime=lifetime, clock=clock.now)
    peers = Peers(replica, partial(mesh_channel, identity=settings.identity()))
    router = Router(replica, presence.locate, peers.link)
    writers = Writers(shepherd.silent())
    agents = AgentService(enrollments, presence, router, writers, heartbeat=settings.heartbeat)
    fleet = FleetService(store, enrollments, router, settings, clock.now)
    herd = Shepherd(router, writers, heartbeat=settings.heartbeat, drain_rate=settings.drain_rate)
    return App(
        [
            Service(
                "twinline.agent_gateway.v1.AgentService",
                partial(agents_pb2_grpc.add_AgentServiceServicer_to_server, agents),
                access.AGENTS,
            ),
            Service(
                "twinline.agent_gateway.v1.FleetService",
                partial(fleet_pb2_grpc.add_FleetServiceServicer_to_server, fleet),
                access.FLEET,
            ),
        ],
        KeysVerifier(keys),
        [
            herd.run,
            presence.write,
            presence.beat,
            presence.note_seen,
            partial(presence.watch, router.changed),
            partial(peers.run, router),
        ],
    )
