"""What tests of the router share: the ends of the lines, what executors want, and what they are told."""

import asyncio
from collections.abc import Sequence
from typing import cast

from twinline.agent_gateway.v1 import agents_pb2
from twinline.agent_gateway.v1 import fleet_pb2 as pb
from twinline_agent_gateway.dispatch_streams import DispatchStream
from twinline_agent_gateway.router import Router
from twinline_agent_gateway.states import State
from twinline_agent_gateway.store import Location
from twinline_agent_gateway.streams import AgentStream, Context, Parcel


class Far:
    """A replica that notes what it is sent."""

    replica = "two"

    def __init__(self) -> None:
        self.delivered: list[str] = []
        self.canceled: list[str] = []

    def deliver(self, agent_id: str, parcel: Parcel) -> bool:
        """Note a task."""
        self.delivered.append(parcel.task_id)
        return True

    def order(self, orders: pb.AgentOrders) -> None:
        """Note cancels."""
        self.canceled += orders.cancel


class Line:
    """An agent's line, which notes what is written to it."""

    def __init__(self) -> None:
        self.deliveries: list[agents_pb2.Delivery] = []
        self.canceled: list[str] = []

    async def write(self, message: agents_pb2.GatewayMessage) -> None:
        """Note a message."""
        self.deliveries += message.orders.deliveries
        self.canceled += message.orders.cancel


async def at_two(agent_ids: Sequence[str]) -> dict[str, Location]:
    """All agents are at the replica `two`."""
    return {agent_id: Location(State.CONNECTED, "two", "127.0.0.1:1") for agent_id in agent_ids}


def cancel(task_id: str) -> pb.DispatchRequest:
    """That this task of agent-1 is canceled."""
    return pb.DispatchRequest(orders=[pb.AgentOrders(agent_id="agent-1", cancel=[task_id])])


def wanted(*task_ids: str, script: bytes | None = None, withdraw: bool = False) -> pb.DispatchRequest:
    """That these tasks of agent-1 are followed or withdrawn; with a script, that they start."""
    work = None if script is None else agents_pb2.Work(script=script)
    tasks = [pb.AgentTask(task_id=task_id, agent_id="agent-1", withdraw=withdraw) for task_id in task_ids]
    return pb.DispatchRequest(batches=[pb.DispatchBatch(work=work, tasks=tasks)])


def stream(epoch: int, line: Line | None = None) -> AgentStream:
    """A stream of agent-1."""
    return AgentStream("agent-1", epoch, cast("Context", line), asyncio.Queue())


async def dispatched(router: Router, dispatcher: DispatchStream, request: pb.DispatchRequest) -> None:
    """Have it done, also where agents must be found for it."""
    await router.dispatch(dispatcher, request)
    if dispatcher.lookup.waiting.is_set():
        await router.find(dispatcher)


async def told(dispatcher: DispatchStream) -> pb.DispatchResponse:
    """The next message."""
    written: asyncio.Queue[pb.DispatchResponse] = asyncio.Queue()
    sending = asyncio.ensure_future(dispatcher.send(written.put))
    response = await asyncio.wait_for(written.get(), 10)
    sending.cancel()
    return response


async def away(dispatcher: DispatchStream) -> set[str]:
    """The tasks that the next message says were not handed over."""
    response = await told(dispatcher)
    assert not response.reports
    assert {gone.agent_id for gone in response.not_connected} == {"agent-1"}
    return {task_id for gone in response.not_connected for task_id in gone.task_ids}
