"""Wakes those who watch a run, or one of its tasks, when this replica has written something about it."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress


class Watcher:
    """Who follows one run or task."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._over = asyncio.Event()

    def tell(self, *, over: bool) -> None:
        """It changed; `over`: for the last time."""
        self._changed.set()
        if over:
            self._over.set()

    async def changed(self, *, within: float) -> None:
        """Return when there is news, or after `within` seconds, since other replicas tell nobody here."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._changed.wait()
        self._changed.clear()

    async def lull(self, seconds: float) -> None:
        """Let more come up before the next look, but have nobody wait for an end that has come."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()


class Changes:
    """Who watches what, by the id of the run or task."""

    def __init__(self) -> None:
        self._watchers: dict[str, set[Watcher]] = {}

    @contextmanager
    def of(self, subject: str) -> Iterator[Watcher]:
        """A watcher that is told whenever this run or task changes here."""
        watcher = Watcher()
        self._watchers.setdefault(subject, set()).add(watcher)
        try:
            yield watcher
        finally:
            self._watchers[subject].discard(watcher)
            if not self._watchers[subject]:
                del self._watchers[subject]

    def tell(self, subjects: Iterable[str], *, over: bool = False) -> None:
        """These runs and tasks changed; `over`: they have ended."""
        if self._watchers:
            for subject in subjects:
                for watcher in self._watchers.get(subject, ()):
                    watcher.tell(over=over)
