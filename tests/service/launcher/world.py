"""A launcher with the real services below it, and short words for what tests do with servers."""

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
from google.protobuf.json_format import MessageToDict

import twinline_executor.app
import twinline_executor.settings
from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from tests.peers.serving import Served, serve
from tests.service.agent_gateway.running import Gateway, gateway_settings, running_gateway
from twinline.executor.v1 import runs_pb2, runs_pb2_grpc, scripts_pb2, scripts_pb2_grpc, targets_pb2_grpc
from twinline.keys.v1 import cloud_keys_pb2, cloud_keys_pb2_grpc
from twinline.launcher.v1 import catalog_pb2, catalog_pb2_grpc, servers_pb2, servers_pb2_grpc
from twinline_kit.server import Bound
from twinline_launcher import app
from twinline_launcher.providers.local import processes
from twinline_launcher.settings import Settings

if TYPE_CHECKING:
    Servers = servers_pb2_grpc.ServerServiceAsyncStub
    Catalog = catalog_pb2_grpc.CatalogServiceAsyncStub

Server = servers_pb2.Server


@dataclass
class Launcher:
    """A running launcher, as an admin sees it."""

    served: Served
    world: "World"
    servers: "Servers" = field(init=False)
    catalog: "Catalog" = field(init=False)

    def __post_init__(self) -> None:
        channel = self.served.as_person("admin")
        self.servers = servers_pb2_grpc.ServerServiceStub(channel)
        self.catalog = catalog_pb2_grpc.CatalogServiceStub(channel)

    async def image(self, name: str, generation: int = 0) -> None:
        """An image of the local cloud."""
        image = catalog_pb2.Image(name=name, cloud="local", cloud_image=name, generation=generation)  # type: ignore[arg-type]
        await self.catalog.ApplyImage(catalog_pb2.ApplyImageRequest(image=image))

    async def group(self, *ports: int, name: str = "open") -> None:
        """A security group."""
        group = catalog_pb2.SecurityGroup(name=name, cloud="local", open_ports=ports)
        await self.catalog.ApplySecurityGroup(catalog_pb2.ApplySecurityGroupRequest(security_group=group))

    async def template(self, name: str = "web", **lists: Any) -> None:
        """A template; `boot` and so on are names of scripts."""
        inputs = lists.pop("inputs", {})
        given: dict[str, Any] = {
            kind: [catalog_pb2.ScriptReference(script=each) for each in lists[kind]] for kind in lists
        }
        template = catalog_pb2.ServerTemplate(name=name, inputs=inputs, **given)
        await self.catalog.ApplyTemplate(catalog_pb2.ApplyTemplateRequest(template=template))

    async def server(self, name: str = "web-1", image: str = "v4", **spec: Any) -> Server:
        """A server with all that a launch needs."""
        spec = {"template": "web", "cloud_key": "launch-key", "security_groups": ["open"], **spec}
        request = servers_pb2.ApplyServerRequest(name=name, deployment=spec.pop("deployment", ""))
        request.next.CopyFrom(servers_pb2.ServerSpec(image=image, **spec))
        return await self.servers.ApplyServer(request)

    async def get(self, name: str = "web-1") -> Server:
        """The server now."""
        return await self.servers.GetServer(servers_pb2.GetServerRequest(server=name))

    async def launch(self, name: str = "web-1", **more: Any) -> Server:
        """Launch it."""
        request_id = more.pop("request_id", str(uuid.uuid4()))
        return await self.servers.LaunchServer(
            servers_pb2.LaunchServerRequest(server=name, request_id=request_id, **more)
        )

    async def terminate(self, name: str = "web-1", **more: Any) -> Server:
        """Terminate it."""
        return await self.servers.TerminateServer(servers_pb2.TerminateServerRequest(server=name, **more))

    async def resume(self, name: str = "web-1", **more: Any) -> Server:
        """Resume its boot."""
        return await self.servers.ResumeServer(servers_pb2.ResumeServerRequest(server=name, **more))

    async def force_operational(self, name: str = "web-1", **more: Any) -> Server:
        """Declare it operational."""
        return await self.servers.ForceOperationalServer(servers_pb2.ForceOperationalServerRequest(server=name, **more))

    async def becomes(self, state: str, name: str = "web-1", within: float = 30) -> Server:
        """The server once it is in that state."""

        async def check() -> Server:
            server = await self.get(name)
            assert state_of(server) == state, MessageToDict(server)
            return server

        return await eventually(check, within=within)

    async def operational(self, name: str = "web-1", **more: Any) -> Server:
        """Launch it and wait until it is operational."""
        await self.launch(name, **more)
        return await self.becomes("OPERATIONAL", name)

    async def history(self, name: str = "web-1") -> list[str]:
        """The states it went through."""
        answer = await self.servers.ListTransitions(servers_pb2.ListTransitionsRequest(server=name))
        return [servers_pb2.ServerState.Name(each.to).removeprefix("SERVER_STATE_") for each in answer.transitions]

    async def preflight(self, name: str = "web-1", **inputs: str) -> dict[str, bool]:
        """The reasons found, and whether each refuses a launch."""
        request = servers_pb2.PreflightServerRequest(server=name, inputs=inputs)
        answer = await self.servers.PreflightServer(request)
        return {each.reason: each.blocking for each in answer.violations}


@dataclass
class World:
    """Keys, a gateway and an executor; launchers come and go on top of them."""

    certificates: Certificates
    folder: Path
    keys: Served
    gateway: Gateway
    executor: Served
    _count: int = 0

    @property
    def instances(self) -> Path:
        """The folders of all machines."""
        return self.folder / "cloud" / "instances"

    def settings(self, database_url: str = "", **more: Any) -> Settings:
        """Settings of a launcher that notices things quickly."""
        self._count += 1
        given: dict[str, Any] = {"tick": 0.05, "idle_tick": 0.2, "cloud_check": 0.3, "lease": 1.0}
        given |= {"executor_address": self.executor.bound.mesh, **more}
        return Settings(
            **self.certificates.settings("launcher", self.folder / f"launcher-{self._count}"),
            database_url=database_url or f"sqlite:///{self.folder / 'launcher.db'}",
            keys_address=self.keys.bound.mesh,
            gateway_address=self.gateway.served.bound.mesh,
            local_cloud_folder=self.folder / "cloud",
            **given,
        )

    @asynccontextmanager
    async def launcher(self, database_url: str = "", **more: Any) -> AsyncIterator[Launcher]:
        """Run a launcher until the block ends; the machines stay."""
        settings = self.settings(database_url, **more)
        async with serve(app.build, settings, certificates=self.certificates, people=self.keys.people) as served:
            yield Launcher(served, self)

    @asynccontextmanager
    async def process(self, settings: Settings, **variables: str) -> AsyncIterator[Served]:
        """Run a launcher as a process of its own; it is killed -9 when the block ends."""
        values = settings.model_dump(mode="json", exclude_none=True).items()
        environment = {f"TWINLINE_LAUNCHER_{name.upper()}": str(value) for name, value in values}
        log = Path(settings.certificate_file).with_name("log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "twinline_launcher"],
                env={**os.environ, **environment, **variables},
                stderr=output,
            )
        served: Served | None = None
        try:
            bound = await eventually(lambda: _bound(log), within=30)
            served = Served(bound, self.certificates, self.keys.people)
            yield served
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)
            if served:
                await served._close()

    async def script(self, source: str, name: str) -> None:
        """Push a script."""
        stub = scripts_pb2_grpc.ScriptServiceStub(self._executor())
        await stub.PushScript(scripts_pb2.PushScriptRequest(name=name, source=source.encode()))

    async def key(self, name: str = "launch-key") -> cloud_keys_pb2.CloudKey:
        """A cloud key with material."""
        request = cloud_keys_pb2.CreateCloudKeyRequest(name=name, request_id=str(uuid.uuid4()))
        return await self.cloud_keys().CreateCloudKey(request)

    def cloud_keys(self) -> "cloud_keys_pb2_grpc.CloudKeyServiceAsyncStub":
        """Cloud keys, as an admin."""
        return cloud_keys_pb2_grpc.CloudKeyServiceStub(self.keys.as_person("admin"))

    def targets(self) -> "targets_pb2_grpc.TargetServiceAsyncStub":
        """The executor's targets, as an admin."""
        return targets_pb2_grpc.TargetServiceStub(self._executor())

    async def run(self, script: str, on: str) -> None:
        """Run a script, and wait until it succeeded."""
        stub = runs_pb2_grpc.RunServiceStub(self._executor())
        request = runs_pb2.StartRunRequest(request_id=str(uuid.uuid4()), script=script, selector=on)
        run = await stub.StartRun(request)
        async for change in stub.WatchRun(runs_pb2.WatchRunRequest(run=run.id, run_only=True)):
            run = change.run
        assert run.state == runs_pb2.Run.STATE_SUCCEEDED

    async def run_names(self) -> list[str]:
        """The scripts of all runs there were, oldest first."""
        stub = runs_pb2_grpc.RunServiceStub(self._executor())
        runs = (await stub.ListRuns(runs_pb2.ListRunsRequest())).runs
        return [run.script or run.command for run in reversed(runs)]

    def end_machines(self) -> None:
        """Cut the power of all machines."""
        for folder in self.instances.glob("*/machine.json"):
            processes.end_machine(folder.parent.name)

    def _executor(self) -> grpc.aio.Channel:
        return self.executor.as_person("admin")


@asynccontextmanager
async def running_world(
    certificates: Certificates, folder: Path, keys: Served, *, executor: Mapping[str, Any] | None = None, **gateway: Any
) -> AsyncIterator[World]:
    """Everything below a launcher, on SQLite, with a key and two scripts. The rest are settings that differ."""
    async with AsyncExitStack() as stack:
        database = f"sqlite:///{folder / 'gateway.db'}"
        below = gateway_settings(certificates, folder / "gateway", keys, database, **gateway)
        fleet = await stack.enter_async_context(running_gateway(certificates, below))
        settings = twinline_executor.settings.Settings(
            **certificates.settings("executor", folder / "executor"),
            database_url=f"sqlite:///{folder / 'executor.db'}",
            keys_address=keys.bound.mesh,
            gateway_address=fleet.served.bound.mesh,
            **{"ssh_connect_timeout": 3.0, **(executor or {})},
        )
        running = await stack.enter_async_context(
            serve(twinline_executor.app.build, settings, certificates=certificates, people=keys.people)
        )
        world = World(certificates, folder, keys, fleet, running)
        stack.callback(world.end_machines)
        await world.key()
        await world.script("#!/bin/sh\necho hello\n", "hello")
        await world.script("#!/bin/sh\necho bye\n", "bye")
        yield world


def _bound(log: Path) -> Bound:
    """Where the launcher that writes this log listens."""
    line = next(json.loads(line) for line in log.read_text().splitlines() if '"serving"' in line)
    return Bound(line["api"], line["mesh"])


def state_of(server: Server) -> str:
    """The state without its prefix."""
    return servers_pb2.ServerState.Name(server.state).removeprefix("SERVER_STATE_")


def word(step: servers_pb2.Step) -> str:
    """A step's state, as people read it."""
    return servers_pb2.Step.State.Name(step.state).removeprefix("STATE_").lower()


def outcomes(server: Server) -> dict[str, str]:
    """What became of each step."""
    return {step.script: word(step) for step in server.current.steps}
