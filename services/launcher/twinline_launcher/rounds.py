"""Looks at machines that rest, many at a time.

A round reads and asks, and writes nothing but this: where a look would do something, the machine is due. Whoever claims
it then looks for itself. So rounds hold no lease, may be made by several replicas at once, and may end at any point.
"""

import asyncio
import logging
from asyncio import to_thread
from collections.abc import Mapping, Sequence

from twinline_kit import loops
from twinline_kit.clock import Clock
from twinline_kit.errors import Error
from twinline_launcher.changes import Changes
from twinline_launcher.errors import RecordUnreadable
from twinline_launcher.models import Instance
from twinline_launcher.phases import RESTING, Phases
from twinline_launcher.providers import Cloud, Clouds
from twinline_launcher.store.instances import InstanceStore

log = logging.getLogger(__name__)

_PAGE = 200
_LIMIT = 60.0


class Rounds:
    """One look at all machines at rest every so many seconds."""

    def __init__(
        self, store: InstanceStore, phases: Phases, clouds: Clouds, *, every: float, changes: Changes, clock: Clock
    ) -> None:
        self._store = store
        self._phases = phases
        self._clouds = clouds
        self._every = every
        self._changes = changes
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        await loops.forever("rounds", self._round, every=self._every)

    async def _round(self) -> None:
        for state in sorted(RESTING):
            after = ""
            while page := await to_thread(self._store.at_rest, state, after=after, limit=_PAGE):
                await self._look_at(page)
                after = page[-1].id

    async def _look_at(self, page: Sequence[Instance]) -> None:
        due: list[str] = []
        for name, machines in _by_cloud(page).items():
            try:
                due += await self._with_work(self._clouds.get(name), machines)
            except Exception as error:  # noqa: BLE001  # one cloud keeps no other, and no later page, waiting
                _report(name, machines, error)
                # What its cloud tells is not asked for where the time is over.
                due += [machine.id for machine in machines if self._phases.is_over(machine, self._clock())]
        if due:
            await to_thread(self._store.wake, due, at=self._clock())
            self._changes.tell()

    async def _with_work(self, cloud: Cloud | None, machines: Sequence[Instance]) -> list[str]:
        if cloud is None:
            return [machine.id for machine in machines]  # whoever looks after it says what is wrong
        try:
            return await self._news(cloud, machines)
        except RecordUnreadable:
            # Which of them it is says nothing of the others.
            return [each for machine in machines for each in await self._news_of_one(cloud, machine)]

    async def _news(self, cloud: Cloud, machines: Sequence[Instance]) -> list[str]:
        async with asyncio.timeout(_LIMIT):
            found = await cloud.describe([machine.id for machine in machines])
        at = self._clock()
        return [machine.id for machine in machines if self._phases.has_work(machine, found.get(machine.id), at)]

    async def _news_of_one(self, cloud: Cloud, machine: Instance) -> list[str]:
        try:
            return await self._news(cloud, [machine])
        except RecordUnreadable:
            return [machine.id]  # whoever looks after it says what is wrong


def _report(cloud: str, machines: Sequence[Instance], error: Exception) -> None:
    text = "machines at rest not looked at, will retry: mend what keeps the cloud from telling of them"
    fields = {"cloud": cloud, "machines": len(machines), "error": str(error) or "took too long"}
    if isinstance(error, (Error, OSError)):
        log.warning(text, extra=fields)
    else:
        log.error(text, extra=fields, exc_info=error)


def _by_cloud(page: Sequence[Instance]) -> Mapping[str, Sequence[Instance]]:
    machines: dict[str, list[Instance]] = {}
    for machine in page:
        machines.setdefault(machine.cloud, []).append(machine)
    return machines
