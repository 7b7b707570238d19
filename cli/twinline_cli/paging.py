"""Reading a paged list to its end."""

from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any, TypeVar

PAGE = 500

T = TypeVar("T")


async def every(
    method: Callable[[Any], Awaitable[Any]], request: Any, field: str, *, limit: int | None = None
) -> list[Any]:
    """All items of `field` over all pages of a List method, at most `limit`."""
    items: list[Any] = []
    request.page_size = min(PAGE, limit or PAGE)
    while True:
        page = await method(request)
        items += getattr(page, field)
        request.page_token = page.next_page_token
        if not request.page_token or (limit and len(items) >= limit):
            return list(islice(items, limit))
