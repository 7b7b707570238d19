"""Looks after machines: claims those that are due by lease, acts with no transaction open, applies guarded.

Any number of replicas do this at once. A replica that dies keeps its machines for one lease; then another one goes on
where the rows say it was. All that may have been asked of a cloud or a service meanwhile is asked again, and changes
nothing.

A lease spares double work; it is not what keeps a machine safe. Leases compare the clocks of replicas, and run out
under somebody who still works. Then two look after one machine for a moment: every write is guarded by the revision
that it was decided on, and every request names what it is for, so that the second one changes nothing.
"""

import asyncio
import logging
from asyncio import to_thread
from datetime import timedelta
from typing import Any

from twinline_kit import loops
from twinline_kit.clock import Clock
from twinline_kit.errors import Conflict, Error
from twinline_kit.ids import new_id
from twinline_launcher.changes import Changes
from twinline_launcher.errors import IllegalTransition
from twinline_launcher.phases import Phases
from twinline_launcher.settings import Settings
from twinline_launcher.store.instances import InstanceStore
from twinline_launcher.turns import Turn

log = logging.getLogger(__name__)

_SHORTEST = 0.005
_MOST_STATES = 16
_TURN_LIMIT = 120.0


class Reconciler:
    """The background work of one replica."""

    def __init__(
        self, store: InstanceStore, phases: Phases, settings: Settings, *, changes: Changes, clock: Clock
    ) -> None:
        self._store = store
        self._phases = phases
        self._settings = settings
        self._changes = changes
        self._clock = clock
        self._owner = new_id("launcher")
        self._lease = timedelta(seconds=settings.lease)
        self._held: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._failures: dict[str, int] = {}

    async def run(self) -> None:
        """Look after machines until cancelled; then let others have them at once."""
        try:
            async with asyncio.TaskGroup() as group:
                every = self._settings.lease / 3
                group.create_task(loops.forever("lease", self._renew, every=every, longest_pause=every))
                group.create_task(self._listen())
                await self._claim_for_ever(group)
        finally:
            await to_thread(lambda: self._store.leave(self._owner, at=self._clock()))

    async def _listen(self) -> None:
        """Wake the claiming when something was written in this process."""
        while True:
            await self._changes.ticket().wait()
            self._wake.set()

    async def _claim_for_ever(self, group: asyncio.TaskGroup) -> None:
        failures = 0
        while True:
            self._wake.clear()
            try:
                pause = await self._claim(group)
                failures = 0
            except Exception:
                failures += 1
                pause = loops.backoff(failures)
                log.exception("machines not claimed, will retry")
            await self._changes.wait(self._wake, pause)

    async def _claim(self, group: asyncio.TaskGroup) -> float:
        """Take what is due; returns the seconds until more will be."""
        held = sorted(self._held)  # also where the lease ran out meanwhile: one look at a time
        free = self._settings.concurrency - len(held)
        at = self._clock()
        lease = await to_thread(
            lambda: self._store.claim(self._owner, at=at, lease=self._lease, limit=free, without=held)
        )
        for instance_id in lease.instances:
            self._held[instance_id] = group.create_task(self._look_after(instance_id))
        if lease.next_due is None or free <= len(lease.instances):
            return self._settings.idle_tick  # a machine that is given back wakes us
        wait = (lease.next_due - self._clock()).total_seconds()
        return min(max(wait, _SHORTEST), self._settings.idle_tick)

    async def _renew(self) -> None:
        # Only these: one that could not be given back is ours in its row as well, until its lease runs out.
        looks = dict(self._held)
        if not looks:
            return
        until = self._clock() + self._lease
        lost = await to_thread(lambda: self._store.renew(self._owner, sorted(looks), until=until))
        for instance_id in lost:
            if looks[instance_id].cancel():
                log.warning("machine taken over by another launcher", extra={"instance": instance_id})

    async def _look_after(self, instance_id: str) -> None:
        try:
            turn = Turn(await to_thread(self._store.get, instance_id), self._store, self._changes, self._clock)
            pause = await self._turn(turn)
            due = None if pause is None else self._clock() + timedelta(seconds=pause)
            revision = turn.instance.revision
            await to_thread(lambda: self._store.release(instance_id, self._owner, revision=revision, due=due))
        except Exception as error:
            # The lease runs out by itself.
            log.exception("machine not given back", extra={"instance": instance_id, "error": str(error)})
        finally:
            self._held.pop(instance_id, None)
            self._wake.set()

    async def _turn(self, turn: Turn) -> float | None:
        """Act until the machine's state asks for a pause. Seconds to wait; None: never look again."""
        try:
            async with asyncio.timeout(_TURN_LIMIT):
                pause = await self._act(turn)
        except (Conflict, IllegalTransition):
            return self._settings.tick  # somebody was faster: it is read again
        except (Error, TimeoutError) as error:
            fields = self._fields(turn)
            log.warning("machine not moved, will retry", extra={**fields, "error": str(error) or "took too long"})
            return loops.backoff(fields["failures"])
        except Exception:
            fields = self._fields(turn)
            log.exception("machine not moved, will retry", extra=fields)
            return loops.backoff(fields["failures"])
        self._failures.pop(turn.instance.id, None)
        return pause

    async def _act(self, turn: Turn) -> float | None:
        pause: float | None = 0
        for _ in range(_MOST_STATES):
            before = turn.instance.state
            pause = await self._phases.act(turn)
            if turn.instance.state == before:
                break
        return pause

    def _fields(self, turn: Turn) -> dict[str, Any]:
        """Count a failure, and say of what."""
        machine = turn.instance
        failures = self._failures[machine.id] = self._failures.get(machine.id, 0) + 1
        fields = {"server": machine.server_name, "instance": machine.id, "state": machine.state}
        return {**fields, "failures": failures}
