"""Wakes those who watch a run when this replica has written something about it."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress


class Bell:
    """One event for each watcher, by run."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def listening(self, run_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the run changes here."""
        event = asyncio.Event()
        self._listeners.setdefault(run_id, set()).add(event)
        try:
            yield event
        finally:
            self._listeners[run_id].discard(event)
            if not self._listeners[run_id]:
                del self._listeners[run_id]

    def ring(self, run_ids: Iterable[str]) -> None:
        """These runs changed."""
        for run_id in run_ids:
            for event in self._listeners.get(run_id, ()):
                event.set()


async def rung(event: asyncio.Event, *, within: float) -> None:
    """Return when the event is set, and clear it; or after `within` seconds, since other replicas ring no bell here."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            await event.wait()
    event.clear()
