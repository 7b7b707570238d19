"""Short random names for resources."""

import os

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
