"""Short random names for resources, and the ids that callers give to their requests."""

import os
from base64 import b32encode

from twinline_kit.errors import InvalidArgument

MAX_REQUEST_ID = 128
"""Characters of a request id."""


def new_id(prefix: str) -> str:
    """A new id such as `run-3k5fq2v7m2x4a6bz`: the prefix, a dash, and 16 characters of [a-z2-7] (80 random bits)."""
    return f"{prefix}-{b32encode(os.urandom(10)).decode().lower()}"


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
