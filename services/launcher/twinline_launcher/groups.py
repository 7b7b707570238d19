"""Security groups, as this launcher knows them, in their clouds."""

import asyncio
from asyncio import to_thread
from collections.abc import Sequence

from twinline_kit import loops
from twinline_launcher.models import SecurityGroup
from twinline_launcher.providers import Clouds
from twinline_launcher.store.catalog import CatalogStore

_PAGE = 500
_LIMIT = 60.0


class Groups:
    """States every security group to its cloud once at the start: the one before us may have died between the two."""

    def __init__(self, catalog: CatalogStore, clouds: Clouds) -> None:
        self._catalog = catalog
        self._clouds = clouds

    async def run(self) -> None:
        """Until all are stated."""
        await loops.until_done("security groups", self._state_all)

    async def _state_all(self) -> None:
        after = ""
        while page := await to_thread(self._page, after):
            for group in page:
                await self._state(group)
            after = page[-1].name

    async def _state(self, group: SecurityGroup) -> None:
        if cloud := self._clouds.get(group.cloud):
            async with asyncio.timeout(_LIMIT):
                await cloud.apply_group(group.name, group.open_ports)

    def _page(self, after: str) -> Sequence[SecurityGroup]:
        return self._catalog.page(SecurityGroup, after=after, limit=_PAGE)
