"""Short random names for resources, and the ids that callers give to their requests."""

import os
import uuid

from twinline_kit.errors import InvalidArgument

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_LENGTH = 16


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
    """One spelling of a request id, which must be a UUID; None when the caller gave none."""
    if not text:
        return None
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise InvalidArgument("request_id must be a UUID", field="request_id") from None
