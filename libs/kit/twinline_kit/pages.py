"""Opaque page tokens for keyset pagination: a token holds the position after which the next page starts."""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from twinline_kit.errors import InvalidArgument

_VERSION = 1

Row = TypeVar("Row")


class BadPageToken(InvalidArgument):
    """A page token that we did not make, or made for another list."""

    reason = "BAD_PAGE_TOKEN"


def encode(*position: str, filter: str = "") -> str:
    """The token for the page after `position` (sort columns of the last row) of the list that `filter` describes."""
    content = json.dumps([_VERSION, _digest(filter), *position], separators=(",", ":"))
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def decode(token: str, *, filter: str = "", parts: int | None = None) -> tuple[str, ...]:
    """The position in `token`; () for the empty token, which asks for the first page.

    BadPageToken when we did not make it, when it was made for another filter, or has not `parts` columns.
    """
    if not token:
        return ()
    try:
        content = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        content = None
    if not isinstance(content, list) or content[:1] != [_VERSION] or not all(map(_is_text, content[1:])):
        raise BadPageToken("page_token is not one of ours: start again without one")
    if content[1:2] != [_digest(filter)]:
        raise BadPageToken("page_token belongs to a list with another filter: start again without one")
    position = tuple(content[2:])
    if parts is not None and len(position) != parts:
        raise BadPageToken("page_token belongs to another list: start again without one")
    return position


def after(token: str, *, filter: str = "") -> str:
    """The position in the token of a list with one sort column, "" for the first page; refuses what `decode` does."""
    return next(iter(decode(token, filter=filter, parts=1)), "")


def slice(
    rows: Sequence[Row], size: int, position: Callable[[Row], str | tuple[str, ...]], *, filter: str = ""
) -> tuple[Sequence[Row], str]:
    """One page of `rows`, which were asked for with one row more than `size`, and the token for the next page.

    `position` answers the sort column of a row, or a tuple of several.
    """
    page = rows[:size]
    if len(rows) <= size:
        return page, ""
    last = position(page[-1])
    return page, encode(*([last] if isinstance(last, str) else last), filter=filter)


def page_size(requested: int, default: int = 100, maximum: int = 1000) -> int:
    """How many rows to return: `default` for 0, at most `maximum`; a negative number is InvalidArgument."""
    if requested < 0:
        raise InvalidArgument("page_size is negative: leave it out or ask for 1 or more", field="page_size")
    return min(requested or default, maximum)


def _is_text(value: object) -> bool:
    """JSON can spell what no database takes: NUL, and halves of characters."""
    return isinstance(value, str) and value.isprintable()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
