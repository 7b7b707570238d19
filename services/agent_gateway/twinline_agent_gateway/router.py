"""Who gets what: work goes to the streams and peers that hold the agents, reports to whoever asked for the task."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from twinline.agent_gateway.v1 import agents_pb2
from twinline.agent_gateway.v1 import fleet_pb2 as pb
from twinline_agent_gateway.convert import to_state
from twinline_agent_gateway.dispatch_streams import DispatchStream
from twinline_agent_gateway.errors import AgentRevoked, StreamFenced
from twinline_agent_gateway.lookup import Wanted
from twinline_agent_gateway.states import State
from twinline_agent_gateway.store import Change, Location
from twinline_agent_gateway.streams import MAX_WORK, MOST_DELIVERIES, AgentStream, Parcel
from twinline_agent_gateway.tracing import traced
from twinline_kit import telemetry, values
from twinline_kit.errors import Error

log = logging.getLogger(__name__)

MOST_ROUTES = 1_000_000
"""Tasks whose reports can be routed at once."""

MOST_HELD = 64 << 20
"""Bytes of agents' messages that may wait here for room on dispatch streams; reports beyond that are shed."""

PATIENCE = 10.0
"""Seconds that an agent is held back for room on one stream, with what it has to say to others; then that is shed."""

MOST_REVOKED = 10_000
"""Agents that are known as revoked without a look at the database: for those that are being let in meanwhile."""

_BREATHE = 500
"""Tasks that are handed over before other work gets its turn."""

_OVER = frozenset({agents_pb2.TaskReport.STATE_REJECTED, agents_pb2.TaskReport.STATE_ABSENT})

_CONNECTED = telemetry.meter().create_up_down_counter(
    "twinline.agents.connected", "{agent}", "Agents whose stream this replica holds"
)

Locate = Callable[[Sequence[str]], Awaitable[Mapping[str, Location]]]


class Peer(Protocol):
    """Another replica, which holds agents."""

    @property
    def replica(self) -> str:
        """Its id."""
        ...

    def deliver(self, agent_id: str, parcel: Parcel) -> bool:
        """Have a task handed over; False when too many wait already."""
        ...

    def order(self, orders: pb.AgentOrders) -> None:
        """Have cancels and acknowledgements handed over."""
        ...


class Route(NamedTuple):
    """Where a task's reports go."""

    dispatcher: DispatchStream
    agent_id: str
    """The only one that may report on it."""
    peer: Peer | None
    """The replica that it was forwarded to."""


class Router:
    """The streams of this replica, and for each task the dispatcher that its reports go to. In memory only."""

    def __init__(self, replica: str, locate: Locate, link: Callable[[Location], Peer]) -> None:
        """`locate` finds agents in the database, `link` gives the line to the replica of a location."""
        self._replica = replica
        self._locate = locate
        self._link = link
        self._streams: dict[str, AgentStream] = {}
        self._routes: dict[str, Route] = {}
        self._dispatchers: dict[tuple[str, bool], DispatchStream] = {}
        self._elsewhere: dict[str, Peer] = {}
        self._revoked: dict[str, None] = {}
        self._held = 0

    # --- streams

    def streams(self) -> list[AgentStream]:
        """All agents connected here."""
        return list(self._streams.values())

    def attach(self, stream: AgentStream) -> None:
        """Let an agent get work. Of two streams of one agent the older is cut; when it is this one: StreamFenced.

        AgentRevoked when that was heard while the agent was being let in.
        """
        if stream.agent_id in self._revoked:
            raise _revoked(stream.agent_id)
        other = self._streams.get(stream.agent_id)
        if other and other.epoch >= stream.epoch:
            raise _fenced(stream)
        if other:
            other.cut(_fenced(other))
        else:
            _CONNECTED.add(1, {"replica": self._replica})
        self._streams[stream.agent_id] = stream
        self._elsewhere.pop(stream.agent_id, None)
        for dispatcher in self._dispatchers.values():
            for wanted in dispatcher.lookup.take(stream.agent_id):
                self._tell(dispatcher, wanted, _LOST)
        self.tell_presence(stream.agent_id)

    def detach(self, stream: AgentStream) -> None:
        """Let it get no more."""
        stream.close()
        if self._streams.get(stream.agent_id) is stream:
            del self._streams[stream.agent_id]
            _CONNECTED.add(-1, {"replica": self._replica})

    def changed(self, change: Change) -> None:
        """Take in what another replica wrote: an agent connected there, or was revoked."""
        stream = self._streams.get(change.agent_id)
        if change.revoked:
            self.revoked(change.agent_id)
        elif change.replica != self._replica:
            if stream and stream.epoch < change.epoch:
                stream.cut(_fenced(stream))
            # News may come after work was sent there already: that way stays, or what follows on it would be lost.
            if (peer := self._elsewhere.get(change.agent_id)) and peer.replica != change.replica:
                del self._elsewhere[change.agent_id]
            if change.connected:
                self.tell_presence(change.agent_id)

    def revoked(self, agent_id: str) -> None:
        """Cut an agent that was ended for good."""
        self._revoked[agent_id] = None
        if len(self._revoked) > MOST_REVOKED:
            del self._revoked[next(iter(self._revoked))]
        if stream := self._streams.get(agent_id):
            stream.cut(_revoked(agent_id))

    def tell_presence(self, agent_id: str) -> None:
        """Have all that is wanted of an agent stated again: it connected, or what it said was lost."""
        for dispatcher in self._dispatchers.values():
            if not dispatcher.forwarded:
                dispatcher.tell_presence(agent_id)

    # --- dispatchers

    def open(self, dispatcher: DispatchStream) -> None:
        """Let a dispatcher in; an older stream of the same one is cut."""
        key = (dispatcher.name, dispatcher.forwarded)
        if older := self._dispatchers.get(key):
            older.cut(StreamFenced(f"dispatcher {dispatcher.name} opened another stream", dispatcher=dispatcher.name))
            self.close(older)
        self._dispatchers[key] = dispatcher

    def close(self, dispatcher: DispatchStream) -> None:
        """Forget a dispatcher and its routes; reports that still come for it are dropped."""
        dispatcher.close()
        key = (dispatcher.name, dispatcher.forwarded)
        if self._dispatchers.get(key) is dispatcher:
            del self._dispatchers[key]
        self._routes = {task_id: route for task_id, route in self._routes.items() if route.dispatcher is not dispatcher}

    def send_away(self, why: Error) -> None:
        """End all dispatch streams: this replica is going away."""
        for dispatcher in self._dispatchers.values():
            dispatcher.cut(why)

    async def dispatch(self, dispatcher: DispatchStream, request: pb.DispatchRequest) -> None:
        """Do what a dispatcher wants, at once for agents that are here. The others are for `find`."""
        not_here: list[tuple[str, Parcel]] = []
        count, size = 0, request.ByteSize()
        for batch in request.batches:
            work = batch.work if batch.HasField("work") else None
            weight, shared = (work.ByteSize(), values.size(work.env)) if work else (0, 0)
            too_large = _too_large(weight)
            # What any of the tasks brings along is part of the request.
            fits = work is None or shared + size <= values.LARGEST_TOTAL
            for task in batch.tasks:
                count += 1
                if count % _BREATHE == 0:
                    await asyncio.sleep(0)
                agent_id = task.agent_id
                brought = weight + values.size(task.env) if work else 0
                parcel = Parcel(task.task_id, work, task.from_offset, task.env, task.withdraw, brought)
                too_much = too_large or ("" if fits else _env_too_large(shared, task))
                if refusal := too_much or self._no_route_left(parcel):
                    self._refuse(dispatcher, agent_id, parcel, refusal)
                elif stream := self._streams.get(agent_id):
                    self._hand(dispatcher, stream, parcel)
                else:
                    not_here.append((agent_id, parcel))
        if not_here:
            self._look_up(dispatcher, not_here, dispatcher.lookup.room(size))
        for orders in request.orders:
            self._order(dispatcher, orders)

    async def find(self, dispatcher: DispatchStream) -> None:
        """Once a dispatcher wants something of agents that are not here, find those and have it handed over."""
        lookup = dispatcher.lookup
        await lookup.waiting.wait()
        agent_ids = lookup.ask()
        places = await self._find(agent_ids)
        for count, agent_id in enumerate(agent_ids, 1):
            if wanted := lookup.answer(agent_id):
                self._tell(dispatcher, wanted, places.get(agent_id, _NEVER))
            if count % _BREATHE == 0:
                await asyncio.sleep(0)
        lookup.answered()

    async def accept(self, agent_id: str, said: agents_pb2.Report) -> int:
        """Pass an agent's reports up; waits for a dispatcher that takes no more. Answers how many were forged.

        An agent reports only on tasks that were delivered to it: the others' results are not for it to write.
        """
        forged = 0
        for report in said.reports:
            route = self._routes.get(report.task_id)
            if route is None:
                continue
            if route.agent_id != agent_id:
                forged += 1
            elif not route.dispatcher.hesitant or await self._fits(route.dispatcher, agent_id, said):
                self._report(route, report)
        return forged

    # --- peers

    def relay(self, said: pb.AgentReport) -> None:
        """Pass up what an agent of a peer reports. Never waits: the peer's line carries others' reports too.

        What has no room on its stream is kept beyond that, up to a bound, or shed.
        """
        for report in said.reports:
            route = self._routes.get(report.task_id)
            if route is None or route.agent_id != said.agent_id:
                continue
            dispatcher = route.dispatcher
            if dispatcher.overfull:
                dispatcher.shed(said.agent_id)
            if not dispatcher.sheds(said.agent_id):
                self._report(route, report)

    def peer_back(self, peer: Peer) -> None:
        """The line to a peer was cut and is back: what was wanted of its agents must be stated again."""
        for agent_id in [agent_id for agent_id, where in self._elsewhere.items() if where is peer]:
            self.tell_presence(agent_id)

    def peer_gone(self, peer: Peer) -> None:
        """A peer is gone for good; its agents are looked for anew."""
        self._elsewhere = {agent_id: where for agent_id, where in self._elsewhere.items() if where is not peer}

    def away(self, peer: Peer, agent_id: str, task_ids: Iterable[str], state: "pb.Agent.State.ValueType") -> None:
        """A peer could not hand these tasks over. It has no say on tasks that went another way by now."""
        if self._elsewhere.get(agent_id) is peer:
            del self._elsewhere[agent_id]
        for task_id in task_ids:
            if (route := self._routes.get(task_id)) and route.peer is peer and route.agent_id == agent_id:
                del self._routes[task_id]
                route.dispatcher.tell_away(agent_id, task_id, state)

    # --- inside

    def _report(self, route: Route, report: agents_pb2.TaskReport) -> None:
        if report.state in _OVER and self._routes.get(report.task_id) is route:  # it may have waited for room
            del self._routes[report.task_id]
        route.dispatcher.report(route.agent_id, report)

    async def _fits(self, dispatcher: DispatchStream, agent_id: str, said: agents_pb2.Report) -> bool:
        """Wait for room on the stream, with all that the agent `said`; False when the agent's reports are shed."""
        if dispatcher.sheds(agent_id):
            return False
        if dispatcher.full:
            size = said.ByteSize()
            self._held += size
            try:
                if self._held > MOST_HELD or not await dispatcher.room(within=PATIENCE):
                    dispatcher.shed(agent_id)
            finally:
                self._held -= size
        return not dispatcher.sheds(agent_id)

    def _hand(self, dispatcher: DispatchStream, stream: AgentStream, parcel: Parcel) -> None:
        agent_id, task_id = stream.agent_id, parcel.task_id
        if parcel.env and telemetry.is_on():
            parcel = parcel._replace(env=traced(parcel.env, agent_id=agent_id, task_id=task_id))
        if stream.deliver(parcel):
            self._routes[task_id] = Route(dispatcher, agent_id, None)
        else:
            self._refuse(dispatcher, agent_id, parcel, _TOO_MANY)

    def _look_up(self, dispatcher: DispatchStream, parcels: Sequence[tuple[str, Parcel]], room: bool) -> None:
        for agent_id, parcel in parcels:
            if stream := self._streams.get(agent_id):  # it came while the request was read
                self._hand(dispatcher, stream, parcel)
            elif room:
                dispatcher.lookup.add(agent_id, parcel)
            else:
                dispatcher.tell_away(agent_id, parcel.task_id, pb.Agent.STATE_LOST)

    async def _find(self, agent_ids: Sequence[str]) -> Mapping[str, Location]:
        try:
            return await self._locate(agent_ids)
        except Exception:
            # Agents that are here, and the way to those of peers, need no database: this must not end the stream.
            log.exception("agents not looked up", extra={"count": len(agent_ids)})
            return dict.fromkeys(agent_ids, _LOST)

    def _tell(self, dispatcher: DispatchStream, wanted: Wanted, place: Location) -> None:
        """Hand over what was wanted of an agent that was looked for; it may have come here meanwhile."""
        agent_id = wanted.agent_id
        stream = self._streams.get(agent_id)
        for parcel in wanted.parcels.values():
            if stream:
                self._hand(dispatcher, stream, parcel)
            elif place.state is not State.CONNECTED:
                dispatcher.tell_away(agent_id, parcel.task_id, to_state(place.state))
            elif place.replica == self._replica or dispatcher.forwarded:
                dispatcher.tell_away(agent_id, parcel.task_id, pb.Agent.STATE_LOST)
            else:
                self._forward(dispatcher, place, agent_id, parcel)
        for orders in wanted.orders():
            self._order(dispatcher, orders)

    def _forward(self, dispatcher: DispatchStream, place: Location, agent_id: str, parcel: Parcel) -> None:
        peer = self._elsewhere[agent_id] = self._link(place)
        if peer.deliver(agent_id, parcel):
            self._routes[parcel.task_id] = Route(dispatcher, agent_id, peer)
        else:
            # Its line may be cut, or a large run has just begun: neither is a reason never to start a task.
            dispatcher.tell_away(agent_id, parcel.task_id, pb.Agent.STATE_LOST)

    def _order(self, dispatcher: DispatchStream, orders: pb.AgentOrders) -> None:
        for ack in orders.acks:
            if ack.final and (route := self._routes.get(ack.task_id)) and route.dispatcher is dispatcher:
                del self._routes[ack.task_id]
        # An agent that is nowhere needs no orders: when it is back, all is stated again.
        if stream := self._streams.get(orders.agent_id):
            stream.order(orders)
            return
        dispatcher.lookup.order(orders)
        # At once too, as it may be long: they are told again after what they may overtake.
        if (peer := self._elsewhere.get(orders.agent_id)) and not dispatcher.forwarded:
            peer.order(orders)

    def _no_route_left(self, parcel: Parcel) -> str:
        if len(self._routes) < MOST_ROUTES or parcel.task_id in self._routes:
            return ""
        return f"this gateway routes {MOST_ROUTES} tasks already: let some of them end, then run this one again"

    def _refuse(self, dispatcher: DispatchStream, agent_id: str, parcel: Parcel, why: str) -> None:
        """Work is rejected. A task that is only followed or withdrawn may be on its host, which alone has a say on it.

        Of such a task it is told that its host could not be asked now, and so it is stated again.
        """
        if parcel.work is None:
            dispatcher.tell_away(agent_id, parcel.task_id, pb.Agent.STATE_LOST)
            return
        report = agents_pb2.TaskReport(task_id=parcel.task_id, state=agents_pb2.TaskReport.STATE_REJECTED, message=why)
        dispatcher.report(agent_id, report)


_NEVER, _LOST = Location(State.NEVER_ENROLLED, "", ""), Location(State.LOST, "", "")
_TOO_MANY = f"{MOST_DELIVERIES} tasks wait for this agent already: let some of them start, then run this one again"


def _too_large(size: int) -> str:
    if size <= MAX_WORK:
        return ""
    return f"the work has {size} bytes, more than {MAX_WORK}: make the script or its environment smaller"


def _env_too_large(shared: int, task: pb.AgentTask) -> str:
    """`shared` is the size of what the work brings along; the task's own comes on top."""
    if (size := shared + values.size(task.env)) <= values.LARGEST_TOTAL:
        return ""
    return f"the task's environment has {size} bytes, more than {values.LARGEST_TOTAL}: make it smaller"


def _revoked(agent_id: str) -> AgentRevoked:
    return AgentRevoked(f"agent {agent_id} was revoked: launch another server", agent=agent_id)


def _fenced(stream: AgentStream) -> StreamFenced:
    return StreamFenced(f"agent {stream.agent_id} opened another stream", agent=stream.agent_id)
