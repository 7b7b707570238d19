"""Short random names for resources, and the ids that callers give to their requests."""

import os
from base64 import b32encode

from twinline_kit.errors import InvalidArgument

MAX_REQUEST_ID = 128
"""Characters of a request id."""


def new_id(prefix: str) -> str:
    """A new id such as `run-3k5fq2v7m2x4a6bz`: the prefix, a dash, and 16 characters of [a-z2-7] (80 random bits)."""
    return new_ids(prefix, 1)[0]


def new_ids(prefix: str, count: int) -> list[str]:
    """So many new ids."""
    characters = b32encode(os.urandom(count * 10)).decode().lower()  # 10 bytes are 16 characters, without padding
    return [f"{prefix}-{characters[start : start + 16]}" for start in range(0, count * 16, 16)]


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
