"""Follows servers. A watcher knows how far it has told each server's history: it can be late, and skips no state."""

import asyncio
from asyncio import to_thread
from collections.abc import AsyncIterator, Sequence

from twinline_launcher.changes import Changes
from twinline_launcher.store.servers import Change, Seen, ServerStore

# Other replicas write without telling us.
_LOOK = 1.0
_GATHER = 0.02


async def follow(store: ServerStore, changes: Changes, only: Sequence[str] | None) -> AsyncIterator[Change]:
    """The servers with the ids `only` (None: all) as they are, then each change, for ever."""
    known: dict[str, Seen] = {}
    while True:
        ticket = changes.ticket()
        for change in await to_thread(lambda: store.changes(known, only=only)):
            known[change.whole.server.id] = change.seen
            yield change
        await changes.wait(ticket, _LOOK)
        await asyncio.sleep(_GATHER)
