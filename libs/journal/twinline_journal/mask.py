"""Secrets out of output: same-length masking of a byte stream."""

from collections.abc import Sequence

_SURE = 16
"""First bytes of a secret that are looked for as one: where they stand, the rest is worth a comparison."""


class Masker:
    """Replaces every occurrence of every secret by as many `*`, also across the borders of chunks.

    Bytes that could be the start of a secret are held back until the next ones tell; what is released keeps its offset.
    Every non-empty secret counts, however short: the caller decides what is one. Not thread-safe.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = sorted({bytes(secret) for secret in secrets if secret}, key=len, reverse=True)
        self._raw = bytearray()
        self._shown = bytearray()  # _raw with what was found so far masked: held bytes may be part of both

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the stream, return those that are now certain."""
        if not self._secrets:
            return bytes(data)
        known = len(self._raw)
        self._raw += data
        self._shown += data
        for secret in self._secrets:
            self._mask(secret, known)
        return self._release(self._certain())

    def finish(self) -> bytes:
        """Return what is still held: the stream ended, so it starts no secret. Feeding may go on as a new stream."""
        return self._release(len(self._raw))

    def held(self) -> int:
        """How many bytes are held back."""
        return len(self._raw)

    def _mask(self, secret: bytes, known: int) -> None:
        """Mask where the secret stands and ends in what came after the first `known` bytes."""
        size, masked = len(secret), 0
        at = self._raw.find(secret, max(0, known - size + 1))
        while at >= 0:
            start = max(at, masked)
            masked = at + size
            self._shown[start:masked] = b"*" * (masked - start)
            at = self._raw.find(secret, at + 1)

    def _certain(self) -> int:
        """The first position from which on the bytes are the start of a secret, or the end."""
        return min(self._start_of(secret) for secret in self._secrets)

    def _start_of(self, secret: bytes) -> int:
        """The first position from which on all bytes are the start of this secret, or the end."""
        size = len(self._raw)
        first = max(0, size - len(secret) + 1)
        with memoryview(self._raw) as raw:  # a slice of the bytes themselves would be a copy
            at = self._raw.find(secret[:_SURE], first)
            while at >= 0:
                with raw[at:] as rest:
                    if secret.startswith(rest):
                        return at
                at = self._raw.find(secret[:_SURE], at + 1)
        for at in range(max(first, size - _SURE + 1), size):
            if secret.startswith(self._raw[at:]):
                return at
        return size

    def _release(self, size: int) -> bytes:
        released = bytes(self._shown[:size])
        del self._raw[:size], self._shown[:size]
        return released
