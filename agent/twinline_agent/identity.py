"""The agent's key and certificate, in files that only their owner can read."""

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from twinline_agent import openssl


@dataclass(frozen=True)
class Certificate:
    """A certificate and its life by this host's clock, in seconds since the epoch."""

    pem: str
    obtained: float
    expires: float

    def is_valid(self, now: float) -> bool:
        """Whether it can be shown; not when the clock was set back, for then nobody knows how much of it is left."""
        return self.obtained <= now < self.expires


class IdentityStore:
    """Key and certificate of one agent. An agent with another id has another folder, so never another's key."""

    def __init__(self, home: Path, agent_id: str) -> None:
        self._folder = home / "identity" / agent_id
        self.key_file = self._folder / "key.pem"
        self._certificate_file = self._folder / "certificate.json"

    def make_key(self) -> None:
        """Have a key on disk. It must be there before the token is spent: a repeated request needs the same key."""
        if not self.key_file.exists():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(self.key_file, openssl.make_key())

    def key(self) -> bytes:
        """The private key, PEM."""
        return self.key_file.read_bytes()

    def certificate(self) -> Certificate | None:
        """The certificate, or None when there is none that can be read."""
        try:
            return Certificate(**json.loads(self._certificate_file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def save(self, certificate: Certificate) -> None:
        """Keep `certificate` in place of the one before."""
        _replace(self._certificate_file, json.dumps(vars(certificate)).encode())


def _replace(path: Path, data: bytes) -> None:
    """Let `path` have this content, whole and on disk, never readable by others on the way."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
