"""Tells those who wait in this process that something was written. Other replicas find it at their next look."""

import asyncio
from contextlib import suppress


class Changes:
    """Take a ticket, read, and wait with the ticket: nothing that is written after the reading is missed."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def tell(self) -> None:
        """Wake all who wait."""
        happened, self._next = self._next, asyncio.Event()
        happened.set()

    def ticket(self) -> asyncio.Event:
        """Set by the next change."""
        return self._next

    @staticmethod
    async def wait(ticket: asyncio.Event, seconds: float) -> None:
        """Until the ticket's change, or so long at most."""
        with suppress(TimeoutError):
            # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the change.
            async with asyncio.timeout(seconds):
                await ticket.wait()
