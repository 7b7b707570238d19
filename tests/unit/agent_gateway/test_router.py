"""The way to agents that other replicas hold."""

from collections.abc import Sequence

from twinline.agent_gateway.v1 import fleet_pb2 as pb
from twinline_agent_gateway.dispatch import Dispatcher
from twinline_agent_gateway.router import Router
from twinline_agent_gateway.states import State
from twinline_agent_gateway.store import Change, Location
from twinline_agent_gateway.streams import Parcel


class Far:
    """A replica that notes what it is sent."""

    replica = "two"

    def __init__(self) -> None:
        self.canceled: list[str] = []

    def deliver(self, agent_id: str, parcel: Parcel) -> bool:
        return True

    def order(self, orders: pb.AgentOrders) -> None:
        self.canceled += orders.cancel


async def at_two(agent_ids: Sequence[str]) -> dict[str, Location]:
    return {agent_id: Location(State.CONNECTED, "two", "127.0.0.1:1") for agent_id in agent_ids}


def connected(number: int, replica: str) -> Change:
    return Change(number, "agent-1", replica, epoch=number, connected=True, revoked=False)


def cancel(task_id: str) -> pb.DispatchRequest:
    return pb.DispatchRequest(orders=[pb.AgentOrders(agent_id="agent-1", cancel=[task_id])])


async def test_late_news_of_an_agent_keeps_the_way_to_it_and_news_of_a_move_does_not() -> None:
    far = Far()
    router, dispatcher = Router("one", at_two, lambda _: far), Dispatcher("executor-1", forwarded=False)
    router.open(dispatcher)
    task = pb.AgentTask(task_id="task-1", agent_id="agent-1")
    await router.dispatch(dispatcher, pb.DispatchRequest(batches=[pb.DispatchBatch(tasks=[task])]))
    router.changed(connected(1, "two"))
    await router.dispatch(dispatcher, cancel("task-1"))
    assert far.canceled == ["task-1"]
    router.changed(connected(2, "three"))
    await router.dispatch(dispatcher, cancel("task-2"))
    assert far.canceled == ["task-1"]
