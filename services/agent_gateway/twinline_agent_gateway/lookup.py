"""What a dispatcher wants of agents that are not here, while the database is asked where they are.

It is asked beside the reading of the dispatcher's stream: what is said to agents that are here never waits for it.
"""

import asyncio

from twinline.agent_gateway.v1 import fleet_pb2 as pb
from twinline_agent_gateway.outbox import Outbox
from twinline_agent_gateway.streams import Parcel

MOST_BYTES = 64 << 20
"""Of requests with tasks that may wait for an answer."""


class Wanted:
    """What one agent is to be told; of a task the latest word counts."""

    __slots__ = ("_outbox", "agent_id", "parcels")

    def __init__(self, agent_id: str) -> None:
        self.agent_id = agent_id
        self.parcels: dict[str, Parcel] = {}
        self._outbox = Outbox()

    def add(self, orders: pb.AgentOrders) -> None:
        """Have cancels and acknowledgements told too."""
        self._outbox.add(orders)

    def orders(self) -> list[pb.AgentOrders]:
        """The cancels and acknowledgements, which are then told: after the tasks that they are about."""
        taken: list[pb.AgentOrders] = []
        while self._outbox:
            taken.append(pb.AgentOrders(agent_id=self.agent_id))
            self._outbox.move_into(taken[-1])
        return taken


class Lookup:
    """The agents that one dispatcher wants something of and that must be found first. Nothing here waits."""

    def __init__(self) -> None:
        self._wanted: dict[str, Wanted] = {}
        self._bytes = 0
        # What is wanted from now on waits for another answer: this one may be older than the news that led to it.
        self._asked: dict[str, Wanted] = {}
        self._asked_bytes = 0
        self.waiting = asyncio.Event()
        """Set while there is somebody to find."""

    def room(self, size: int) -> bool:
        """Whether tasks of another request, of `size` bytes, may wait. If so they count from now on."""
        if self._bytes + self._asked_bytes + size > MOST_BYTES:
            return False
        self._bytes += size
        return True

    def add(self, agent_id: str, parcel: Parcel) -> None:
        """Have the agent found, and then told of a task."""
        wanted = self._wanted.get(agent_id)
        if wanted is None:
            wanted = self._wanted[agent_id] = Wanted(agent_id)
        wanted.parcels[parcel.task_id] = parcel
        self.waiting.set()

    def order(self, orders: pb.AgentOrders) -> None:
        """Have them told as well, where the agent is being looked for."""
        if wanted := self._wanted.get(orders.agent_id) or self._asked.get(orders.agent_id):
            wanted.add(orders)

    def ask(self) -> list[str]:
        """Who must be found now."""
        self._asked, self._wanted = self._wanted, {}
        self._asked_bytes, self._bytes = self._bytes, 0
        self.waiting.clear()
        return list(self._asked)

    def answer(self, agent_id: str) -> Wanted | None:
        """What was wanted of an agent when it was asked for; None when it was told of it meanwhile."""
        return self._asked.pop(agent_id, None)

    def answered(self) -> None:
        """All are answered."""
        self._asked_bytes = 0

    def take(self, agent_id: str) -> list[Wanted]:
        """All that is wanted of an agent that is here now, in order."""
        taken = self._asked.pop(agent_id, None), self._wanted.pop(agent_id, None)
        return [wanted for wanted in taken if wanted]

    def clear(self) -> None:
        """Look for nobody any more."""
        self._wanted.clear()
        self._asked.clear()
