"""Secrets out of output: same-length masking of a byte stream."""

from collections.abc import Sequence


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
        self._raw += data
        self._shown += data
        for secret in self._secrets:
            self._mask(secret)
        return self._release(self._certain())

    def finish(self) -> bytes:
        """Return what is still held: the stream ended, so it starts no secret. Feeding may go on as a new stream."""
        return self._release(len(self._raw))

    def held(self) -> int:
        """How many bytes are held back."""
        return len(self._raw)

    def _mask(self, secret: bytes) -> None:
        size = len(secret)
        at = self._raw.find(secret)
        while at >= 0:
            self._shown[at : at + size] = b"*" * size
            at = self._raw.find(secret, at + 1)

    def _certain(self) -> int:
        """The first position from which on the bytes are the start of a secret, or the end."""
        end = len(self._raw)
        for secret in self._secrets:
            at = self._raw.find(secret[:1], max(0, len(self._raw) - len(secret) + 1), end)
            while at >= 0 and not secret.startswith(self._raw[at:]):
                at = self._raw.find(secret[:1], at + 1, end)
            end = at if at >= 0 else end
        return end

    def _release(self, size: int) -> bytes:
        released = bytes(self._shown[:size])
        del self._raw[:size], self._shown[:size]
        return released
