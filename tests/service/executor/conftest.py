"""An executor with a real keys service, real hosts, and short words for what tests do with them."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc.aio
import pytest

from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from tests.peers.postgres import Server
from tests.peers.serving import Served, serve
from tests.peers.sshd import Sshd, running_sshd
from twinline.executor.v1 import runs_pb2, runs_pb2_grpc, scripts_pb2_grpc, targets_pb2, targets_pb2_grpc
from twinline.keys.v1 import cloud_keys_pb2, cloud_keys_pb2_grpc, credentials_pb2, credentials_pb2_grpc
from twinline_executor import app
from twinline_executor.settings import Settings

if TYPE_CHECKING:
    Runs = runs_pb2_grpc.RunServiceAsyncStub
    Targets = targets_pb2_grpc.TargetServiceAsyncStub
    Scripts = scripts_pb2_grpc.ScriptServiceAsyncStub

Run: TypeAlias = runs_pb2.Run
Task: TypeAlias = runs_pb2.Task
Start = Callable[..., AbstractAsyncContextManager["Executor"]]


@dataclass
class Executor:
    """A running executor as an admin sees it."""

    served: Served
    keys: Served
    runs: "Runs" = field(init=False)
    targets: "Targets" = field(init=False)
    scripts: "Scripts" = field(init=False)

    def __post_init__(self) -> None:
        channel = self.served.as_person("admin")
        self.runs = runs_pb2_grpc.RunServiceStub(channel)
        self.targets = targets_pb2_grpc.TargetServiceStub(channel)
        self.scripts = scripts_pb2_grpc.ScriptServiceStub(channel)

    async def start(self, command: str, *targets: str, **fields: Any) -> Run:
        """Start a run of a command."""
        request = runs_pb2.StartRunRequest(
            request_id=fields.pop("request_id", str(uuid.uuid4())), command=command, targets=targets, **fields
        )
        return await self.runs.StartRun(request)

    async def run(self, command: str, *targets: str, **fields: Any) -> Task:
        """Run a command to its end; the task of the first target."""
        started = await self.start(command, *targets, **fields)
        await self.ended(started.id)
        return await self.task(started.id)

    async def ended(self, run_id: str) -> Run:
        """The run once it has ended."""
        run = Run()
        async for response in self.runs.WatchRun(runs_pb2.WatchRunRequest(run=run_id)):
            run = response.run
        assert run.state != Run.STATE_RUNNING
        return run

    async def task(self, run_id: str) -> Task:
        """The first task of a run."""
        return (await self.tasks(run_id))[0]

    async def tasks(self, run_id: str) -> list[Task]:
        """The tasks of a run, by the target's name."""
        return list((await self.runs.ListTasks(runs_pb2.ListTasksRequest(run=run_id))).tasks)

    async def task_becomes(
        self, run_id: str, state: "Task.State.ValueType", reason: str = "", within: float = 20
    ) -> Task:
        """The first task of a run once it is in that state."""

        async def check() -> Task:
            task = await self.task(run_id)
            assert (task.state, task.reason) == (state, reason or task.reason), task
            return task

        return await eventually(check, within=20)

    async def output(self, task: Task, offset: int = 0, *, follow: bool = False) -> bytes:
        """What is stored of a task's output; every piece must follow the one before."""
        collected = b""
        request = runs_pb2.ReadOutputRequest(task=task.id, offset=offset, follow=follow)
        async for response in self.runs.ReadOutput(request):
            assert response.offset == offset + len(collected)
            collected += response.data
        return collected

    async def add_host(self, host: Sshd, name: str = "web-1", **line: Any) -> targets_pb2.Target:
        """Register a host as a v4 target."""
        fields: dict[str, Any] = {"port": host.port, "username": host.username, "cloud_key": "launch-key"} | line
        ssh = targets_pb2.SshLine(host="127.0.0.1", **fields)
        target = targets_pb2.Target(id=f"target-{name}", name=name, tags=["role=web"], ssh=ssh)
        answer = await self.targets.ApplyTargets(targets_pb2.ApplyTargetsRequest(targets=[target]))
        return answer.targets[0]

    async def set_credential(self, name: str, value: bytes) -> None:
        """Store a secret with keys."""
        stub = credentials_pb2_grpc.CredentialServiceStub(self.keys.as_person("admin"))
        await stub.SetCredential(credentials_pb2.SetCredentialRequest(name=name, value=value))


@pytest.fixture
def shared_database(postgres_server: Server) -> Iterator[str]:
    """PostgreSQL, as replicas have it."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def start_executor(authority: Certificates, keys: Served, tmp_path: Path) -> Start:
    """Starts executors, several on one database when asked to."""
    count = 0

    @asynccontextmanager
    async def start(database_url: str = "", **more: Any) -> AsyncIterator[Executor]:
        nonlocal count
        count += 1
        defaults: dict[str, Any] = {"beat_interval": 0.2, "beat_limit": 1.0, "ssh_connect_timeout": 3.0}
        settings = Settings(
            **authority.settings("executor", tmp_path / f"executor-{count}"),
            database_url=database_url or f"sqlite:///{tmp_path / 'executor.db'}",
            **{"keys_address": keys.bound.mesh} | defaults | more,
        )
        async with serve(app.build, settings, certificates=authority, people=keys.people) as served:
            yield Executor(served, keys)

    return start


@pytest.fixture
async def executor(start_executor: Start) -> AsyncIterator[Executor]:
    """An executor on SQLite."""
    async with start_executor() as running:
        yield running


@pytest.fixture
async def cloud_key(keys: Served) -> cloud_keys_pb2.CloudKey:
    """A cloud key with material, `launch-key`."""
    stub = cloud_keys_pb2_grpc.CloudKeyServiceStub(keys.as_person("admin"))
    return await stub.CreateCloudKey(cloud_keys_pb2.CreateCloudKeyRequest(name="launch-key"))


@pytest.fixture
async def host(tmp_path: Path, cloud_key: cloud_keys_pb2.CloudKey) -> AsyncIterator[Sshd]:
    """A v4 host that lets the cloud key in."""
    async with running_sshd(tmp_path / "host") as sshd:
        sshd.authorize([cloud_key.public_key])
        yield sshd


def channel_of(executor: Executor, person: str) -> grpc.aio.Channel:
    """A channel on which the caller is that person."""
    return executor.served.as_person(person)
