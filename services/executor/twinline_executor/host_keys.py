"""Pins the host keys that are seen at first contact."""

import asyncio

from twinline_executor.rows import SeenHostKey
from twinline_executor.store.targets import TargetStore


class HostKeys:
    """Stores what was seen: while one transaction is under way, the next ones come together in one."""

    def __init__(self, targets: TargetStore) -> None:
        self._targets = targets
        self._waiting: list[tuple[SeenHostKey, asyncio.Future[str]]] = []
        self._storing = asyncio.Lock()

    async def pin(self, seen: SeenHostKey) -> str:
        """Pin the key, unless one is pinned already; answer the one that is now, "" when the target moved on."""
        pinned: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((seen, pinned))
        async with self._storing:
            if not pinned.done():
                await self._store()
        return pinned.result()

    async def _store(self) -> None:
        batch, self._waiting = self._waiting, []
        try:
            stored = await asyncio.to_thread(self._targets.learn_host_keys, [seen for seen, _ in batch])
        except Exception as error:  # noqa: BLE001  # told to everyone who waits for it
            for _, pinned in batch:
                pinned.set_exception(error)
        except BaseException:
            # Whoever stores for all was dropped: the next of those who wait does it.
            self._waiting = batch + self._waiting
            raise
        else:
            for (_, pinned), key in zip(batch, stored, strict=True):
                pinned.set_result(key)
