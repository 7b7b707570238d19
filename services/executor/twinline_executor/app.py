"""Makes the executor's objects and wires them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import grpc.aio
import sqlalchemy as sa

from twinline.executor.v1 import runs_pb2_grpc, scripts_pb2_grpc, targets_pb2_grpc
from twinline_executor import access
from twinline_executor.agent_line import AgentLine
from twinline_executor.changes import Changes
from twinline_executor.credentials import Credentials
from twinline_executor.dispatcher import Dispatcher
from twinline_executor.planner import Planner
from twinline_executor.recorder import Recorder
from twinline_executor.service.runs import RunService
from twinline_executor.service.scripts import ScriptService
from twinline_executor.service.targets import TargetService
from twinline_executor.settings import Settings
from twinline_executor.signer import Signer
from twinline_executor.ssh_line import SshLine
from twinline_executor.store.output import OutputStore
from twinline_executor.store.owners import OwnerStore
from twinline_executor.store.results import ResultStore
from twinline_executor.store.runs import RunStore
from twinline_executor.store.scripts import ScriptStore
from twinline_executor.store.targets import TargetStore
from twinline_executor.watching import Watching
from twinline_kit import clock, db
from twinline_kit.app import App
from twinline_kit.client import mesh_channel
from twinline_kit.ids import new_id
from twinline_kit.server import Service
from twinline_kit.verifier import KeysVerifier


@asynccontextmanager
async def build(settings: Settings) -> AsyncIterator[App]:
    """Yield the executor, ready to register. Main, suite and tests all start here."""
    identity = settings.identity()
    async with AsyncExitStack() as stack:
        engine = db.open(settings.database_url)
        stack.callback(engine.dispose)
        await asyncio.to_thread(db.migrate, engine, "twinline_executor")
        keys = await stack.enter_async_context(mesh_channel(settings.keys_address, identity))
        gateway = None
        if settings.gateway_address:
            gateway = await stack.enter_async_context(mesh_channel(settings.gateway_address, identity))
        yield _app(settings, engine, keys, gateway)


def _app(settings: Settings, engine: sa.Engine, keys: grpc.aio.Channel, gateway: grpc.aio.Channel | None) -> App:
    replica = settings.replica or new_id("replica")
    targets, scripts, runs, output = TargetStore(engine), ScriptStore(engine), RunStore(engine), OutputStore(engine)
    changes = Changes()
    recorder = Recorder(ResultStore(engine, replica), output, changes, clock=clock.now, max_output=settings.max_output)
    credentials = Credentials(keys, runs, recorder, unknown_after=settings.unknown_after)
    dispatcher = Dispatcher(
        replica, owners=OwnerStore(engine), scripts=scripts, recorder=recorder, credentials=credentials,
        ssh=SshLine(targets, recorder, Signer(keys, remembered=settings.ssh_key_known), settings),
        agents=AgentLine(gateway, replica, runs, recorder, settings),
        settings=settings, clock=clock.now,
    )  # fmt: skip
    planner = Planner(scripts, targets, replica, max_output=settings.max_output)
    services = _services(
        RunService(runs, planner, credentials, dispatcher, Watching(runs, output, changes), clock=clock.now),
        TargetService(targets, clock=clock.now),
        ScriptService(scripts, clock=clock.now),
    )
    return App(services, KeysVerifier(keys), [dispatcher.run])


def _services(runs: RunService, targets: TargetService, scripts: ScriptService) -> list[Service]:
    return [
        Service(
            "twinline.executor.v1.RunService",
            partial(runs_pb2_grpc.add_RunServiceServicer_to_server, runs),
            access.RUNS,
        ),
        Service(
            "twinline.executor.v1.TargetService",
            partial(targets_pb2_grpc.add_TargetServiceServicer_to_server, targets),
            access.TARGETS,
        ),
        Service(
            "twinline.executor.v1.ScriptService",
            partial(scripts_pb2_grpc.add_ScriptServiceServicer_to_server, scripts),
            access.SCRIPTS,
        ),
    ]
