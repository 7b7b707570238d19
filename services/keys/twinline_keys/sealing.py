"""Secrets at rest: AES-256-GCM envelopes.

Each record is encrypted with a fresh data key, which the key-encryption key (KEK) wraps. A sealed record is

    version (1) | KEK id (8) | nonce (12) | wrapped data key (48) | nonce (12) | ciphertext and tag

Both layers authenticate the version, the KEK id and the record's own kind and id, so a record that was altered, or was
copied over another one, does not open. The version byte makes a later format, the KEK id a later key, recognisable.
"""

import base64
import binascii
import hashlib
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from twinline_keys.errors import SealBroken
from twinline_kit import secret_files
from twinline_kit.secret_files import SecretFileUnusable

VERSION = b"\x01"
KEY_SIZE = 32
NONCE_SIZE = 12
TAG_SIZE = 16
ID_SIZE = 8
HEADER_SIZE = len(VERSION) + ID_SIZE
WRAPPED_SIZE = NONCE_SIZE + KEY_SIZE + TAG_SIZE
SMALLEST = HEADER_SIZE + WRAPPED_SIZE + NONCE_SIZE + TAG_SIZE


class Sealer:
    """Seals and opens records with one key-encryption key."""

    def __init__(self, kek: bytes) -> None:
        self._kek = AESGCM(kek)
        self._header = VERSION + hashlib.sha256(b"twinline key-encryption key id" + kek).digest()[:ID_SIZE]

    def seal(self, kind: str, record_id: str, clear: bytes) -> bytes:
        """Encrypt `clear` as the record `record_id` of `kind`."""
        bound = self._bound(kind, record_id)
        data_key = AESGCM.generate_key(KEY_SIZE * 8)
        wrap_nonce, nonce = os.urandom(NONCE_SIZE), os.urandom(NONCE_SIZE)
        wrapped = self._kek.encrypt(wrap_nonce, data_key, bound)
        return self._header + wrap_nonce + wrapped + nonce + AESGCM(data_key).encrypt(nonce, clear, bound)

    def open(self, kind: str, record_id: str, sealed: bytes) -> bytes:
        """Decrypt what `seal` made of the same record. Raises SealBroken for anything else."""
        bound = self._bound(kind, record_id)
        wrapped, body = sealed[HEADER_SIZE : HEADER_SIZE + WRAPPED_SIZE], sealed[HEADER_SIZE + WRAPPED_SIZE :]
        try:
            if not self.sealed_here(sealed):
                raise InvalidTag
            data_key = self._kek.decrypt(wrapped[:NONCE_SIZE], wrapped[NONCE_SIZE:], bound)
            return AESGCM(data_key).decrypt(body[:NONCE_SIZE], body[NONCE_SIZE:], bound)
        except InvalidTag:
            raise SealBroken(
                f"the sealed {kind} {record_id} does not open: restore the database from your backup",
                kind=kind,
                record=record_id,
            ) from None

    def sealed_here(self, record: bytes) -> bool:
        """Whether `record` has the form of what this sealer makes, with this key. Opens nothing."""
        return form_of_seal(record) and record.startswith(self._header)

    def _bound(self, kind: str, record_id: str) -> bytes:
        return self._header + f"{kind}|{record_id}".encode()


def form_of_seal(record: bytes) -> bool:
    """Whether `record` has the form of a sealed one, whatever its key."""
    return len(record) >= SMALLEST and record.startswith(VERSION)


def load_kek(path: Path, *, may_make: bool) -> bytes:
    """The key-encryption key in `path`: 32 bytes in base64. Without the file one is made, when that is allowed."""
    text = secret_files.read_or_make(path, _new_kek) if may_make else secret_files.read(path)
    try:
        kek = base64.b64decode(text, validate=True)
    except binascii.Error:
        kek = b""
    if len(kek) != KEY_SIZE:
        raise SecretFileUnusable(
            f"{path} does not hold a key-encryption key ({KEY_SIZE} bytes in base64): restore it from your backup",
            file=str(path),
        )
    return kek


def _new_kek() -> str:
    return base64.b64encode(secrets.token_bytes(KEY_SIZE)).decode()
