"""The executor's end of a Dispatch stream: states what it wants, stores what comes, acknowledges what it stored."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from twinline.agent_gateway.v1 import agents_pb2, fleet_pb2, fleet_pb2_grpc
from twinline_kit.errors import Error
from twinline_kit.ids import new_id

OVER = (agents_pb2.TaskReport.STATE_FINISHED, agents_pb2.TaskReport.STATE_INTERRUPTED)


@dataclass
class Stored:
    """A task as an executor would store it: output is appended only at the size stored so far."""

    output: bytes = b""
    reports: list[agents_pb2.TaskReport] = field(default_factory=list)
    over: agents_pb2.TaskReport | None = None
    repeated: int = 0

    def take(self, report: agents_pb2.TaskReport) -> None:
        """Store one report."""
        self.reports.append(report)
        if report.data and report.offset == len(self.output):
            self.output += report.data
        elif report.data:
            self.repeated += 1
        if report.state in OVER and report.output_size == len(self.output):
            self.over = report

    @property
    def states(self) -> list[str]:
        """The states told, in order."""
        return [agents_pb2.TaskReport.State.Name(each.state).removeprefix("STATE_") for each in self.reports]


class Executor:
    """One Dispatch stream, and all that was stored, also on streams before."""

    def __init__(self, *, acknowledges: bool = True) -> None:
        self.acknowledges = acknowledges
        self.reads = asyncio.Event()
        self.reads.set()
        self.tasks: dict[str, Stored] = {}
        self.present: list[str] = []
        self.restates: dict[str, list[str]] = {}
        """Tasks by agent that are stated again when the agent is present."""
        self.not_connected: dict[str, str] = {}
        self.ended: Error | None = None
        self._call: Any = None
        # Tests state work while what comes is acknowledged, and a call takes one write at a time.
        self._writing = asyncio.Lock()

    @asynccontextmanager
    async def connected(self, channel: grpc.aio.Channel, name: str = "executor-1") -> AsyncIterator["Executor"]:
        """Hold a stream until the block ends."""
        call = self._call = fleet_pb2_grpc.FleetServiceStub(channel).Dispatch()
        await call.write(fleet_pb2.DispatchRequest(hello=fleet_pb2.DispatchHello(dispatcher=name)))
        await call.initial_metadata()
        reading = asyncio.ensure_future(self._read(call))
        try:
            yield self
        finally:
            call.cancel()
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    async def state(self, agent_id: str, *task_ids: str, script: str | bytes | None = None, **more: Any) -> None:
        """State that these tasks are wanted; without a script only their reports."""
        if not task_ids:
            return
        work = None
        if script is not None:
            work = agents_pb2.Work(
                script=script.encode() if isinstance(script, str) else script, **more.pop("work", {})
            )
        tasks = [
            fleet_pb2.AgentTask(
                task_id=each, agent_id=agent_id, from_offset=len(self.stored(each).output), env=more.get("env", {})
            )
            for each in task_ids
        ]
        await self.send(fleet_pb2.DispatchRequest(batches=[fleet_pb2.DispatchBatch(work=work, tasks=tasks)]))

    async def run(self, agent_id: str, script: str, **more: Any) -> str:
        """State a new task and return its id."""
        task_id = new_id("task")
        await self.state(agent_id, task_id, script=script, **more)
        return task_id

    async def order(self, agent_id: str, **orders: Any) -> None:
        """Send cancels or acknowledgements."""
        given = fleet_pb2.AgentOrders(agent_id=agent_id, **orders)
        await self.send(fleet_pb2.DispatchRequest(orders=[given]))

    async def send(self, request: fleet_pb2.DispatchRequest) -> None:
        """Send any request."""
        async with self._writing:
            await self._call.write(request)

    def stored(self, task_id: str) -> Stored:
        """What is stored of a task."""
        return self.tasks.setdefault(task_id, Stored())

    def result(self, task_id: str) -> agents_pb2.TaskReport:
        """The report of its end; fails while there is none."""
        over = self.stored(task_id).over
        assert over is not None
        return over

    async def _read(self, call: Any) -> None:
        try:
            while isinstance(message := await call.read(), fleet_pb2.DispatchResponse):
                await self.reads.wait()
                for gone in message.not_connected:
                    state = fleet_pb2.Agent.State.Name(gone.state).removeprefix("STATE_")
                    self.not_connected.update(dict.fromkeys(gone.task_ids, state))
                for each in message.reports:
                    await self._take(each)
                for present in message.presence:
                    self.present.append(present.agent_id)
                    await self.state(present.agent_id, *self.restates.get(present.agent_id, ()))
        except Error as error:
            self.ended = error

    async def _take(self, given: fleet_pb2.AgentReport) -> None:
        acks = []
        for report in given.reports:
            stored = self.stored(report.task_id)
            stored.take(report)
            acks.append(agents_pb2.OutputAck(task_id=report.task_id, offset=len(stored.output)))
        if self.acknowledges:
            await self.order(given.agent_id, acks=acks)
