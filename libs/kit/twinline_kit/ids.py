"""Short random names for resources, and the ids that callers give to their requests."""

import os

from twinline_kit.errors import InvalidArgument

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_LENGTH = 16

MAX_REQUEST_ID = 128
"""Characters of a request id."""


def new_id(prefix: str) -> str:
    """A new id such as `run-3k9fq0v7m2x8a1bz`: the prefix, a dash, and 16 characters of [a-z0-9] (82 random bits)."""
    # 128 bits folded into 82 leave no bias worth naming, and cost one system call instead of sixteen.
    number = int.from_bytes(os.urandom(16), "big")
    characters = []
    for _ in range(_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        characters.append(_ALPHABET[digit])
    return f"{prefix}-{''.join(characters)}"


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
