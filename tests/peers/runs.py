"""Runs as whoever started them sees them, through cuts of every kind."""

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from tests.peers.eventually import eventually
from twinline.executor.v1 import runs_pb2, runs_pb2_grpc
from twinline_kit.client import api_channel

Run = runs_pb2.Run
Task = runs_pb2.Task
PATIENCE = 40.0


@asynccontextmanager
async def channel_of(home: Path) -> AsyncIterator[grpc.aio.Channel]:
    """A channel of the administrator to the suite of that home; it outlives the suite's restarts."""
    client = home / "client"
    address, token = (client / "address").read_text().strip(), (client / "token").read_text().strip()
    async with api_channel(address, (client / "ca.pem").read_bytes(), token) as channel:
        yield channel


@asynccontextmanager
async def runs_of(home: Path) -> AsyncIterator["Runs"]:
    """The runs of the suite of that home."""
    async with channel_of(home) as channel:
        yield Runs(channel)


@dataclass(frozen=True)
class Runs:
    """Starts and follows runs. Every question is asked again while nobody answers, for at most PATIENCE seconds."""

    channel: grpc.aio.Channel

    @property
    def _stub(self) -> "runs_pb2_grpc.RunServiceAsyncStub":
        return runs_pb2_grpc.RunServiceStub(self.channel)

    async def start(self, command: str, selector: str, inputs: Mapping[str, str] | None = None) -> str:
        """Start a run; its id."""
        request = runs_pb2.StartRunRequest(
            request_id=str(uuid.uuid4()), command=command, selector=selector, inputs=inputs
        )

        async def started() -> str:
            return (await self._stub.StartRun(request)).id

        return await eventually(started, within=PATIENCE)

    async def tasks(self, run: str) -> list[Task]:
        """The run's tasks, by name of the server."""
        return list((await self._stub.ListTasks(runs_pb2.ListTasksRequest(run=run))).tasks)

    async def grows(self, run: str, by: int) -> None:
        """Wait until every task has stored that much more output than it has now."""
        before: dict[str, int] = {}

        async def grown() -> bool:
            tasks = await self.tasks(run)
            for task in tasks:
                before.setdefault(task.id, task.output_size)
            return all(task.output_size >= before[task.id] + by for task in tasks)

        has_grown: bool = await eventually(grown, within=PATIENCE)
        assert has_grown

    async def ended(self, run: str) -> list[Task]:
        """The run's tasks once all of them have ended."""

        async def all_ended() -> list[Task]:
            found = await self._stub.GetRun(runs_pb2.GetRunRequest(run=run))
            assert found.state != Run.STATE_RUNNING, await self.tasks(run)
            return await self.tasks(run)

        return await eventually(all_ended, within=PATIENCE)

    async def output(self, task: Task) -> bytes:
        """What is stored of a task's output; every piece must follow the one before."""
        collected = bytearray()
        async for piece in self._stub.ReadOutput(runs_pb2.ReadOutputRequest(task=task.id)):
            assert piece.offset == len(collected)
            collected += piece.data
        return bytes(collected)

    async def run(self, command: str, selector: str, inputs: Mapping[str, str] | None = None) -> list[Task]:
        """Start a run and wait for its end."""
        return await self.ended(await self.start(command, selector, inputs))
