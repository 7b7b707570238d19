"""One look at one machine: its row as last read or written, and guarded ways to go on from there."""

import logging
from asyncio import to_thread
from datetime import datetime, timedelta
from typing import Any

from twinline_kit.clock import Clock
from twinline_launcher.changes import Changes
from twinline_launcher.models import Instance
from twinline_launcher.states import Event
from twinline_launcher.store.instances import InstanceStore

log = logging.getLogger(__name__)


class Turn:
    """Every write is guarded by the row that the decision was made on: Conflict when somebody was faster."""

    def __init__(self, instance: Instance, store: InstanceStore, changes: Changes, clock: Clock) -> None:
        self.instance = instance
        self._store = store
        self._changes = changes
        self._clock = clock

    async def move(self, event: Event, cause: str, **facts: Any) -> None:
        """Move the machine along the table, and write `facts` with it."""
        before = self.instance
        at = self._clock()
        self.instance = await to_thread(
            lambda: self._store.apply(before.id, event, at=at, cause=cause, revision=before.revision, **facts)
        )
        self._changes.tell()
        fields = {"server": before.server_name, "instance": before.id, "event": event.value, "cause": cause}
        log.info("server moved", extra={**fields, "from": before.state, "to": self.instance.state})

    async def save(self, **facts: Any) -> None:
        """Write what became known, where it differs from what was."""
        before = self.instance
        new = {name: value for name, value in facts.items() if getattr(before, name) != value}
        if not new:
            return
        self.instance = await to_thread(lambda: self._store.save(before.id, revision=before.revision, **new))
        self._changes.tell()

    def now(self) -> datetime:
        """The present moment."""
        return self._clock()

    def age(self) -> timedelta:
        """How long the machine has been in its state."""
        return self._clock() - self.instance.state_time
