"""An agent that says what a test wants it to say."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from tests.service.agent_gateway.running import Gateway
from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline.agent_gateway.v1 import agents_pb2_grpc as rpc
from twinline_kit.client import mesh_channel


class SimulatedAgent:
    """One stream of an agent."""

    def __init__(self, agent_id: str, call: Any) -> None:
        self.agent_id = agent_id
        self.reports = 0
        """Messages with reports that were sent."""
        self._call = call

    async def say_hello(self, version: str = "0.0.1", /, **facts: str) -> pb.Welcome:
        """Say hello and return the welcome; raises what the gateway refuses with."""
        await self._call.write(pb.AgentMessage(hello=pb.Hello(version=version, facts=facts)))
        message = await self.hear()
        assert message.HasField("welcome")
        return message.welcome

    async def hear(self) -> pb.GatewayMessage:
        """The next message; raises when the stream ended."""
        message = await self._call.read()
        assert isinstance(message, pb.GatewayMessage)
        return message

    async def orders(self) -> pb.Orders:
        """The next message, which must be orders."""
        message = await self.hear()
        assert message.HasField("orders")
        return message.orders

    async def report(self, *reports: pb.TaskReport) -> None:
        """Say how tasks stand."""
        await self._call.write(pb.AgentMessage(report=pb.Report(reports=reports)))
        self.reports += 1

    async def report_each(self, reports: Iterable[pb.TaskReport]) -> None:
        """Say how tasks stand, one message a report."""
        for report in reports:
            await self.report(report)

    async def heartbeat(self) -> None:
        """Say nothing in particular."""
        await self._call.write(pb.AgentMessage(heartbeat=pb.Heartbeat()))


def finished(task_id: str, output: bytes = b"") -> pb.TaskReport:
    """The report of a task that went well."""
    state, end = pb.TaskReport.STATE_FINISHED, pb.TaskReport.END_EXITED
    return pb.TaskReport(task_id=task_id, state=state, end=end, output_size=len(output), data=output)


@asynccontextmanager
async def dialled(gateway: Gateway, agent_id: str) -> AsyncIterator[SimulatedAgent]:
    """A stream on which nothing was said yet."""
    identity = gateway.served.certificates.agent(agent_id)
    async with mesh_channel(gateway.served.bound.mesh, identity) as channel:
        call = rpc.AgentServiceStub(channel).Connect()
        try:
            yield SimulatedAgent(agent_id, call)
        finally:
            call.cancel()


@asynccontextmanager
async def simulated(gateway: Gateway, agent_id: str = "") -> AsyncIterator[SimulatedAgent]:
    """An agent that is connected; a new one when no id is given."""
    agent_id = agent_id or (await gateway.enrollment()).agent_id
    async with dialled(gateway, agent_id) as agent:
        await agent.say_hello()
        yield agent
