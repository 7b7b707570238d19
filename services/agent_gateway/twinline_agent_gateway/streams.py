"""Agents' streams: what waits for each, and the few writers that carry it out.

All that waits for one agent goes in one message. A task a stream would cost a fifth more than a bounded number of
writers over a queue of the streams that have something to send.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

import grpc.aio

from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline.agent_gateway.v1 import fleet_pb2
from twinline_agent_gateway.cuts import Cuttable
from twinline_agent_gateway.outbox import Outbox
from twinline_kit.errors import Error, Internal
from twinline_kit.times import duration

log = logging.getLogger(__name__)

WRITERS = 256
"""As many as an executor's batch has tasks: what came together leaves in one go, and the answers come together too.

With a quarter of them a run of a thousand agents takes an eighth more of the processor.
"""

LIGHT = 64 << 10
"""Bytes of work in a message that is written beside any others."""

MOST_HEAVY = 32 << 20
"""Bytes of work in the other messages that are being written: each is in memory more than once, and stops all else here
while it is made."""

MOST_DELIVERIES = 1024
"""Deliveries with work that may wait for one agent."""

MAX_WORK = 4 << 20
"""Bytes of one piece of work."""

MESSAGE = 4 << 20
"""Bytes after which nothing more is put into a message; with the largest task on top it stays below 16 MiB."""

Context = grpc.aio.ServicerContext[pb.AgentMessage, pb.GatewayMessage]


class Parcel(NamedTuple):
    """A task on its way to an agent. The work is shared by all the tasks of a run."""

    task_id: str
    work: pb.Work | None
    from_offset: int
    env: Mapping[str, str]
    """Over that of the work."""
    withdraw: bool = False
    size: int = 0
    """Bytes of the work, with that environment."""


class AgentStream(Cuttable):
    """One connected agent."""

    __slots__ = (
        "_bytes", "_closed", "_context", "_drain", "_outbox", "_parcels", "_queue", "_queued", "_works",
        "agent_id", "epoch", "forged", "heard", "writing_since",
    )  # fmt: skip

    def __init__(self, agent_id: str, epoch: int, context: Context, queue: "asyncio.Queue[AgentStream]") -> None:
        super().__init__()
        self.agent_id = agent_id
        self.epoch = epoch
        self.heard = time.monotonic()
        """When the agent last spoke."""
        self.forged = 0
        """Reports on tasks that were not delivered to it."""
        self.writing_since: float | None = None
        self._context = context
        self._queue = queue
        self._queued = False
        self._parcels: dict[str, Parcel] = {}
        self._works = 0
        """Parcels among them that bring work."""
        self._bytes = 0
        """Of their work."""
        self._outbox = Outbox()
        self._drain: float | None = None
        self._closed = False

    def deliver(self, parcel: Parcel) -> bool:
        """Have a task handed over; the latest word on a task counts. False when too much work waits already.

        What brings no work is always taken: it is as small as its route, and there are no more of it.
        """
        waiting = self._parcels.get(parcel.task_id)
        more = (parcel.work is not None) - (waiting is not None and waiting.work is not None)
        if more > 0 and self._works >= MOST_DELIVERIES:
            return False
        self._works += more
        self._bytes += parcel.size - (waiting.size if waiting else 0)
        self._parcels[parcel.task_id] = parcel
        self._mark()
        return True

    def order(self, orders: fleet_pb2.AgentOrders) -> None:
        """Have cancels and acknowledgements handed over."""
        self._outbox.add(orders)
        self._mark()

    def drain(self, come_back_after: float) -> None:
        """Ask the agent to go, and to come back after that many seconds."""
        self._drain = come_back_after
        self._mark()

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being written."""
        return not self._queued and self.writing_since is None

    @property
    def weight(self) -> int:
        """Bytes of work in the next message, at most."""
        return min(self._bytes, MESSAGE + MAX_WORK)

    async def write(self) -> None:
        """Write what waits, as one message. Only one writer at a time comes here."""
        self.writing_since = time.monotonic()
        try:
            await self._context.write(self._take())
        except grpc.aio.BaseError as error:  # the root of all that a servicer's write raises
            # The line is gone. The reading side notices too, and whoever wanted this states it again.
            log.debug("not written", extra={"agent": self.agent_id, "error": str(error)})
            self.close()
        finally:
            self.writing_since = None
            self._queued = False
            if self._parcels or self._outbox or self._drain is not None:
                self._mark()

    def close(self) -> None:
        """Drop what waits, and what comes: nothing can be written any more."""
        self._closed = True
        self._parcels.clear()
        self._works = self._bytes = 0
        self._outbox.clear()
        self._drain = None

    def _mark(self) -> None:
        if self._closed:
            self.close()
        elif not self._queued:
            self._queued = True
            self._queue.put_nowait(self)

    def _take(self) -> pb.GatewayMessage:
        """The next message: as much of what waits as fits."""
        if self._drain is not None and not (self._parcels or self._outbox):
            drain = pb.Drain(come_back_after=duration(timedelta(seconds=self._drain)))
            self._drain = None
            return pb.GatewayMessage(drain=drain)
        message = pb.GatewayMessage()
        orders = message.orders
        room = MESSAGE
        while self._parcels and room > 0:
            task_id, parcel = next(iter(self._parcels.items()))
            del self._parcels[task_id]
            self._works -= parcel.work is not None
            self._bytes -= parcel.size
            delivery = _add(orders, parcel)
            if self._parcels:
                room -= 128 + delivery.ByteSize()
        self._outbox.move_into(orders)
        return message


def _add(orders: pb.Orders, parcel: Parcel) -> pb.Delivery:
    """Put a parcel into the message."""
    delivery = orders.deliveries.add(task_id=parcel.task_id)
    if parcel.from_offset:
        delivery.from_offset = parcel.from_offset
    if parcel.withdraw:
        delivery.withdraw = True
    if parcel.work is not None:
        delivery.work.CopyFrom(parcel.work)
        env = delivery.work.env
        for name in parcel.env:  # with `update` it takes twice the time, for each host of a run
            env[name] = parcel.env[name]
    return delivery


class Writers:
    """Carries out what waits for agents. An agent that takes nothing holds back its own stream only."""

    STUCK = 0.5
    """Seconds after which a writer counts as held up, and is stood in for."""

    GIVE_UP = 20.0
    """Seconds after which the stream that holds it up is cut."""

    def __init__(self, too_slow: Error) -> None:
        self.queue: asyncio.Queue[AgentStream] = asyncio.Queue()
        self._too_slow = too_slow
        self._writing: set[AgentStream] = set()
        self._heavy: dict[AgentStream, int] = {}
        """The weight of those whose heavy messages are being written, or are next."""
        self._waiting: deque[AgentStream] = deque()
        """Those whose heavy messages have no room beside them. No writer waits with them."""
        self._alive = 0
        self._held_up = 0

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                now = time.monotonic()
                stuck = [s for s in self._writing if s.writing_since and now - s.writing_since > self.STUCK]
                self._held_up = len(stuck)
                while self._alive < WRITERS + self._held_up:
                    self._alive += 1
                    group.create_task(self._write())
                for stream in stuck:
                    self._leaves(stream)  # it shall not hold back the others
                    if stream.writing_since and now - stream.writing_since > self.GIVE_UP:
                        stream.cut(self._too_slow)
                await asyncio.sleep(self.STUCK)

    async def _write(self) -> None:
        try:
            while self._alive <= WRITERS + self._held_up:
                stream = await self.queue.get()
                if (weight := stream.weight) > LIGHT:
                    if not self._enters(stream):
                        continue
                    self._heavy[stream] = weight  # more may wait for it by now than when it was let in
                self._writing.add(stream)
                try:
                    await stream.write()
                except Exception:
                    # Not just closed: it would go on as connected, and drop all that is wanted of the agent.
                    log.exception("write failed unexpectedly", extra={"agent": stream.agent_id})
                    stream.cut(Internal("what is wanted of the agent could not be written: connect again"))
                    stream.close()
                finally:
                    self._writing.discard(stream)
                    self._leaves(stream)
        finally:
            self._alive -= 1

    def _enters(self, stream: AgentStream) -> bool:
        """Whether its message fits beside the heavy ones; else it is written when its turn comes."""
        if stream not in self._heavy:
            self._waiting.append(stream)
            self._let_in(at_once=stream)
        return stream in self._heavy

    def _leaves(self, stream: AgentStream) -> None:
        if self._heavy.pop(stream, None) is not None:
            self._let_in()

    def _let_in(self, at_once: AgentStream | None = None) -> None:
        """Take those that fit now, in their order; one that alone is too heavy has all the room."""
        while self._waiting:
            weight = self._waiting[0].weight
            if self._heavy and sum(self._heavy.values()) + weight > MOST_HEAVY:
                break
            stream = self._waiting.popleft()
            self._heavy[stream] = weight
            if stream is not at_once:
                self.queue.put_nowait(stream)
