"""Cancels and acknowledgements on their way to one agent."""

from twinline.agent_gateway.v1 import agents_pb2, fleet_pb2

MOST_ORDERS = 10_000
"""Of each kind in one message."""


class Outbox:
    """What waits to be said to one agent. Of a task only the latest counts, however often it was said."""

    __slots__ = ("_acks", "_cancels")

    def __init__(self) -> None:
        self._cancels: dict[str, None] = {}
        self._acks: dict[str, tuple[int, bool]] = {}

    def __bool__(self) -> bool:
        return bool(self._cancels or self._acks)

    def add(self, orders: fleet_pb2.AgentOrders) -> None:
        """Have these said too."""
        if orders.cancel:
            self._cancels.update(dict.fromkeys(orders.cancel))
        for ack in orders.acks:
            offset, final = self._acks.get(ack.task_id, (0, False))
            self._acks[ack.task_id] = (max(offset, ack.offset), final or ack.final)

    def move_into(self, orders: agents_pb2.Orders | fleet_pb2.AgentOrders) -> None:
        """Put as much of it as fits into a message."""
        while self._cancels and len(orders.cancel) < MOST_ORDERS:
            orders.cancel.append(self._cancels.popitem()[0])
        while self._acks and len(orders.acks) < MOST_ORDERS:
            task_id, (offset, final) = self._acks.popitem()
            orders.acks.add(task_id=task_id, offset=offset, final=final)

    def clear(self) -> None:
        """Drop it all."""
        self._cancels.clear()
        self._acks.clear()
