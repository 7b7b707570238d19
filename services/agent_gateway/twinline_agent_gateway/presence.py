"""Which replica holds which agent: written in batches, read once a tick. Nothing here is a statement per agent."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

from twinline_agent_gateway.errors import AgentRevoked, AgentUnknown, GatewayStopping, PresenceUnavailable, StreamFenced
from twinline_agent_gateway.store import Admission, Change, Connecting, Location, PresenceStore, RowRefused
from twinline_kit import loops
from twinline_kit.clock import Clock

log = logging.getLogger(__name__)

_BEATS = 4
"""How often a replica says that it lives within the time it may be silent for."""

_SEEN_EVERY = 60.0
_RETRY = 0.5
_THREADS = 4

T = TypeVar("T")

Arrival = tuple[Connecting, "asyncio.Future[int]"]


class Presence:
    """This replica's part in the common table of agents."""

    def __init__(
        self, store: PresenceStore, *, replica: str, address: str, tick: float, limit: float, clock: Clock
    ) -> None:
        """`address` is this replica's mesh port as the others reach it; `limit` is how long it may be silent."""
        self._store = store
        self._replica = replica
        self._address = address
        self._tick = tick
        self._limit = limit
        self._clock = clock
        # Its own, so that what cancelled work left running in them is over before the database is closed.
        self._threads = ThreadPoolExecutor(_THREADS, "presence")
        # Waits for nobody: calls that the database keeps waiting may take all of the others.
        self._heart = ThreadPoolExecutor(1, "heartbeat")
        self._arrivals: list[Arrival] = []
        self._departures: list[tuple[str, int]] = []
        self._wake = asyncio.Event()
        self._stopping = False
        self._known_change = 0

    async def connect(self, agent: Connecting) -> int:
        """The new epoch of an agent at the door; all that wait share one transaction.

        Raises AgentUnknown, AgentRevoked, StreamFenced (it came twice) or GatewayStopping.
        """
        if self._stopping:
            raise _stopping()
        admitted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._arrivals.append((agent, admitted))
        self._wake.set()
        try:
            return await asyncio.shield(admitted)
        except asyncio.CancelledError:
            # The agent went while it was being written down as connected.
            admitted.add_done_callback(lambda done: self._undo(agent.agent_id, done))
            raise

    def disconnect(self, agent_id: str, epoch: int) -> None:
        """Have it noted that a stream ended."""
        self._departures.append((agent_id, epoch))
        self._wake.set()

    async def locate(self, agent_ids: Sequence[str]) -> dict[str, Location]:
        """Where these agents are; unknown ones are missing from the answer."""
        return await self._call(lambda: self._store.locate(agent_ids, at=self._clock()))

    async def join(self) -> None:
        """Enter the table of replicas, with no agents of an earlier process of the same name."""
        await self._call(lambda: self._store.leave(self._replica))
        await self._beat()
        self._known_change = await self._call(self._store.latest_change)

    async def leave(self) -> None:
        """Leave the table; the agents that were here are lost until they connect elsewhere. The last thing it does."""
        await asyncio.to_thread(self._heart.shutdown)  # a beat that comes later would enter the replica again
        try:
            await self._call(lambda: self._store.leave(self._replica))
        except Exception:
            log.exception("this replica could not take its leave; its agents are lost once it is silent for long")
        await asyncio.to_thread(self._threads.shutdown)

    async def write(self) -> None:
        """Write what waits, whenever something does, until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                arrivals, self._arrivals = self._arrivals, []
                departures, self._departures = self._departures, []
                try:
                    await self._write(arrivals, departures)
                except asyncio.CancelledError:
                    self._arrivals += arrivals
                    raise
        finally:
            self._stopping = True
            _fail(self._arrivals, _stopping())

    async def beat(self) -> None:
        """Say that this replica lives, until cancelled."""
        every = self._limit / _BEATS
        await loops.forever("replica heartbeat", self._beat, every=every, longest_pause=every)

    async def note_seen(self) -> None:
        """Note now and then that the agents connected here are alive, until cancelled."""

        async def note() -> None:
            await self._call(lambda: self._store.seen(self._replica, at=self._clock()))

        await loops.forever("last seen", note, every=_SEEN_EVERY)

    async def watch(self, changed: Callable[[Change], None]) -> None:
        """Call `changed` for each agent that connected to any replica or was revoked, until cancelled."""

        async def look() -> None:
            for change in await self._call(lambda: self._store.changes_after(self._known_change)):
                self._known_change = max(self._known_change, change.number)
                changed(change)

        await loops.forever("changes of agents", look, every=self._tick)

    async def _call(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _undo(self, agent_id: str, done: "asyncio.Future[int]") -> None:
        if not done.cancelled() and done.exception() is None:
            self.disconnect(agent_id, done.result())

    async def _beat(self) -> None:
        now = self._clock()
        until = now + timedelta(seconds=self._limit)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(
            self._heart, lambda: self._store.beat(self._replica, self._address, at=now, until=until)
        )

    async def _write(self, arrivals: list[Arrival], departures: list[tuple[str, int]]) -> None:
        if departures:
            try:
                await self._call(lambda: self._store.disconnect(departures, at=self._clock()))
            except Exception:
                log.exception("departures not written, will retry")
                self._departures += departures
                await asyncio.sleep(_RETRY)
                self._wake.set()
        if arrivals:
            await self._admit(arrivals)

    async def _admit(self, arrivals: Sequence[Arrival]) -> None:
        latest = {agent.agent_id: (agent, admitted) for agent, admitted in arrivals}
        _fail(
            [arrival for arrival in arrivals if latest[arrival[0].agent_id][1] is not arrival[1]],
            StreamFenced("the agent opened another stream at once"),
        )
        agents = [agent for agent, _ in latest.values()]
        try:
            admissions = await self._call(lambda: self._store.connect(agents, replica=self._replica, at=self._clock()))
        except Exception as error:
            if isinstance(error, RowRefused) and len(agents) > 1:
                await self._admit_in_halves(list(latest.values()))
                return
            log.exception("arrivals not written", extra={"count": len(agents), "agent": agents[0].agent_id})
            _fail(arrivals, PresenceUnavailable("this gateway cannot write to its database: connect again"))
            return
        for agent, admitted in latest.values():
            if not admitted.done():
                _answer(admitted, agent.agent_id, admissions.get(agent.agent_id))

    async def _admit_in_halves(self, arrivals: Sequence[Arrival]) -> None:
        """One of them cannot be stored: the others shall not suffer, nor pay with a transaction each."""
        middle = len(arrivals) // 2
        await self._admit(arrivals[:middle])
        await self._admit(arrivals[middle:])


def _answer(admitted: "asyncio.Future[int]", agent_id: str, admission: Admission | None) -> None:
    if admission is None:
        admitted.set_exception(AgentUnknown(f"no agent {agent_id}: launch a server to get one", agent=agent_id))
    elif admission.revoked:
        admitted.set_exception(AgentRevoked(f"agent {agent_id} was revoked: launch another server", agent=agent_id))
    else:
        admitted.set_result(admission.epoch)


def _fail(arrivals: Sequence[Arrival], error: Exception) -> None:
    for _, admitted in arrivals:
        if not admitted.done():
            admitted.set_exception(error)


def _stopping() -> GatewayStopping:
    return GatewayStopping("this gateway is stopping: connect again")
