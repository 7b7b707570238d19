"""Wakes those who watch a run, or one of its tasks, when this replica has written something about it."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress


class Changes:
    """One event for each watcher, by the id of what it watches."""

    def __init__(self) -> None:
        self._watchers: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def of(self, subject: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever this run or task changes here."""
        event = asyncio.Event()
        self._watchers.setdefault(subject, set()).add(event)
        try:
            yield event
        finally:
            self._watchers[subject].discard(event)
            if not self._watchers[subject]:
                del self._watchers[subject]

    def tell(self, subjects: Iterable[str]) -> None:
        """These runs and tasks changed."""
        if self._watchers:
            for subject in subjects:
                for event in self._watchers.get(subject, ()):
                    event.set()


async def changed(event: asyncio.Event, *, within: float) -> None:
    """Return when the event is set, and clear it; or after `within` seconds, since other replicas tell nobody here."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            await event.wait()
    event.clear()
