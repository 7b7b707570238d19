"""Short random names for resources, and the ids that callers give to their requests."""

import os
from base64 import b32encode
from itertools import islice, product

from twinline_kit.errors import InvalidArgument

_ASCENDING = "234567abcdefghijklmnopqrstuvwxyz"

MAX_REQUEST_ID = 128
"""Characters of a request id."""


def new_id(prefix: str) -> str:
    """A new id such as `run-3k5fq2v7m2x4a6bz`: the prefix, a dash, and 16 characters of [a-z2-7] (80 random bits)."""
    return f"{prefix}-{_random(16)}"


def new_ids(prefix: str, count: int) -> list[str]:
    """So many such ids, in ascending order. Each million shares its first 12 characters (60 random bits).

    Rows that are written together then lie together in a database's index too, however many it has.
    """
    made: list[str] = []
    while len(made) < count:
        stem = f"{prefix}-{_random(12)}"
        made += [stem + "".join(end) for end in islice(product(_ASCENDING, repeat=4), count - len(made))]
    return made


def _random(characters: int) -> str:
    return b32encode(os.urandom(10)).decode().lower()[:characters]


def request_id(text: str) -> str | None:
    """`text`, when it can be the id of a request; None when the caller gave none. A UUID is best, others will do."""
    if len(text) > MAX_REQUEST_ID or not text.isprintable():
        raise InvalidArgument(
            f"request_id must be printable text of at most {MAX_REQUEST_ID} characters: send a UUID", field="request_id"
        )
    return text or None


def required_request_id(text: str) -> str:
    """The same where a caller must give one."""
    if given := request_id(text):
        return given
    raise InvalidArgument("request_id is empty: send a UUID, the same one when repeating", field="request_id")
