"""Lines to the other replicas: one forwarded Dispatch stream to each that holds agents somebody here asked for."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import islice

import grpc.aio

from twinline.agent_gateway.v1 import fleet_pb2 as pb
from twinline.agent_gateway.v1 import fleet_pb2_grpc as rpc
from twinline_agent_gateway.outbox import MOST_ORDERS, Outbox
from twinline_agent_gateway.router import Router
from twinline_agent_gateway.store import Location
from twinline_agent_gateway.streams import MESSAGE, Parcel
from twinline_kit import values
from twinline_kit.loops import backoff, end_if_cancelled

log = logging.getLogger(__name__)

MOST_PARCELS = 100_000
"""Tasks that may wait for one peer."""

GIVE_UP = 5
"""Failures in a row after which a peer counts as gone."""

_PARCELS = 1000
_ORDERS = 1000

Dial = Callable[[str], grpc.aio.Channel]


class PeerLink:
    """The line to one replica. When it cannot be had again, what waits is answered as not connected."""

    def __init__(self, place: Location, replica: str, dial: Dial) -> None:
        """`replica` is this one's id, by which the peer knows us."""
        self.place = place
        self._replica = replica
        self._dial = dial
        self._parcels: dict[str, tuple[str, Parcel]] = {}
        self._outboxes: dict[str, Outbox] = {}
        self._wake = asyncio.Event()
        self.open = True

    @property
    def replica(self) -> str:
        """The peer's id."""
        return self.place.replica

    def deliver(self, agent_id: str, parcel: Parcel) -> bool:
        """Have a task handed over; False when too many wait already."""
        if len(self._parcels) >= MOST_PARCELS and parcel.task_id not in self._parcels:
            return False
        self._parcels[parcel.task_id] = (agent_id, parcel)
        self._wake.set()
        return True

    def order(self, orders: pb.AgentOrders) -> None:
        """Have cancels and acknowledgements handed over."""
        self._outboxes.setdefault(orders.agent_id, Outbox()).add(orders)
        self._wake.set()

    async def run(self, router: Router) -> None:
        """Hold the line until the peer is gone for good, or until cancelled. What waits is kept meanwhile."""
        failures, again = 0, False
        while failures < GIVE_UP:
            talked = asyncio.Event()
            try:
                async with self._dial(self.place.address) as channel:
                    await self._talk(channel, router, talked, again=again)
            except asyncio.CancelledError:
                pass  # grpc.aio also says so of calls that ended for reasons of their own
            except Exception as error:  # noqa: BLE001  # one peer must not end the others' lines
                log.warning("line to peer lost", extra={"peer_replica": self.place.replica, "error": _said(error)})
            end_if_cancelled()
            again = again or talked.is_set()
            failures = 1 if talked.is_set() else failures + 1
            await asyncio.sleep(backoff(failures))
        self.open = False
        for agent_id, parcel in self._parcels.values():
            router.away(self, agent_id, [parcel.task_id], pb.Agent.STATE_LOST)
        router.peer_gone(self)

    async def _talk(self, channel: grpc.aio.Channel, router: Router, talked: asyncio.Event, *, again: bool) -> None:
        stub: rpc.FleetServiceAsyncStub = rpc.FleetServiceStub(channel)
        call = stub.Dispatch()
        await call.write(pb.DispatchRequest(hello=pb.DispatchHello(dispatcher=self._replica, forwarded=True)))
        await call.initial_metadata()
        talked.set()
        if again:
            router.peer_back(self)
        async with asyncio.TaskGroup() as group:
            sender = group.create_task(self._send(call.write))
            while isinstance(message := await call.read(), pb.DispatchResponse):
                for each in message.reports:
                    router.relay(each)
                for present in message.presence:
                    router.tell_presence(present.agent_id)
                for gone in message.not_connected:
                    router.away(self, gone.agent_id, gone.task_ids, gone.state)
            sender.cancel()

    async def _send(self, write: Callable[[pb.DispatchRequest], Awaitable[None]]) -> None:
        self._wake.set()
        while True:
            await self._wake.wait()
            request = self._take()
            if not (self._parcels or self._outboxes):
                self._wake.clear()
            if request.batches or request.orders:
                await write(request)

    def _take(self) -> pb.DispatchRequest:
        """The next request: tasks with the same work in one batch."""
        request = pb.DispatchRequest()
        batches: dict[int, pb.DispatchBatch] = {}
        size = taken = 0
        for agent_id, parcel in self._parcels.values():
            if taken >= _PARCELS or size >= MESSAGE:
                break
            batch = batches.get(id(parcel.work))
            if batch is None:
                batch = batches[id(parcel.work)] = request.batches.add(work=parcel.work)
                size += parcel.work.ByteSize() if parcel.work else 0
            batch.tasks.add(
                task_id=parcel.task_id, agent_id=agent_id, from_offset=parcel.from_offset, env=parcel.env,
                withdraw=parcel.withdraw,
            )  # fmt: skip
            size += 128 + values.size(parcel.env)
            taken += 1
        for task_id in list(islice(self._parcels, taken)):
            del self._parcels[task_id]
        self._take_orders(request)
        return request

    def _take_orders(self, request: pb.DispatchRequest) -> None:
        room = MOST_ORDERS
        for agent_id, outbox in list(islice(self._outboxes.items(), _ORDERS)):
            if room <= 0:
                break
            orders = request.orders.add(agent_id=agent_id)
            outbox.move_into(orders)
            room -= len(orders.cancel) + len(orders.acks)
            if not outbox:
                del self._outboxes[agent_id]


class Peers:
    """The lines that this replica holds, made when they are first needed."""

    def __init__(self, replica: str, dial: Dial) -> None:
        """`replica` is this one's id; `dial` opens a channel to a mesh address."""
        self._replica = replica
        self._dial = dial
        self._links: dict[str, PeerLink] = {}
        self._new: asyncio.Queue[PeerLink] = asyncio.Queue()

    def link(self, place: Location) -> PeerLink:
        """The line to the replica that holds an agent."""
        link = self._links.get(place.replica)
        if link is None or not link.open or link.place.address != place.address:
            link = self._links[place.replica] = PeerLink(place, self._replica, self._dial)
            self._new.put_nowait(link)
        return link

    async def run(self, router: Router) -> None:
        """Hold the lines until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task((await self._new.get()).run(router))


def _said(error: Exception) -> str:
    return "; ".join(map(_said, error.exceptions)) if isinstance(error, ExceptionGroup) else str(error)
