"""What must hold before the service answers: the right key-encryption key, nothing stored in clear, two people."""

import secrets
from contextlib import closing
from pathlib import Path

from twinline_keys.errors import ClearMaterialStored, SealingKeyWrong
from twinline_keys.models import Role
from twinline_keys.people import token_hash
from twinline_keys.sealing import Sealer, form_of_seal, load_kek
from twinline_keys.store import PeopleStore, SealStore
from twinline_kit import secret_files
from twinline_kit.secret_files import SecretFileUnusable

CANARY_KIND, CANARY_NAME, CANARY_WORDS = "canary", "canary", b"this opens with the right key-encryption key"
CLEAR_MARKS = (b"PRIVATE KEY", b"openssh-key-v1", b"PuTTY-User-Key-File")
SHORTEST_TOKEN = 32


def open_sealer(store: SealStore, kek_file: Path) -> Sealer:
    """The sealer for the records in `store`. At the very first start its key is made in `kek_file`.

    Raises SecretFileUnusable, SealingKeyWrong or ClearMaterialStored: the service must not run then.
    """
    canary = store.canary()
    sealer = Sealer(load_kek(kek_file, may_make=canary is None))
    if canary is None:
        store.plant(sealer.seal(CANARY_KIND, CANARY_NAME, CANARY_WORDS))
        # Another replica's canary may have been first.
        canary = store.canary() or b""
    if not sealer.sealed_here(canary):
        raise _wrong_key(kek_file, "database")
    sealer.open(CANARY_KIND, CANARY_NAME, canary)
    with closing(store.records()) as records:
        for kind, name, record in records:
            _must_be_sealed(sealer, kek_file, kind, name, record)
    return sealer


def ensure_people(store: PeopleStore, admin_token_file: Path, observer_token_file: Path) -> None:
    """Make the people `admin` and `observer` with the tokens in these files, which are made when missing."""
    admin, observer = _token(admin_token_file), _token(observer_token_file)
    if admin == observer:
        raise SecretFileUnusable(
            f"{admin_token_file} and {observer_token_file} hold the same token: delete the latter, a new one is made",
            file=str(observer_token_file),
        )
    store.ensure("admin", Role.ADMIN, token_hash(admin))
    store.ensure("observer", Role.OBSERVER, token_hash(observer))


def _must_be_sealed(sealer: Sealer, kek_file: Path, kind: str, name: str, record: bytes) -> None:
    if any(mark in record for mark in CLEAR_MARKS) or not form_of_seal(record):
        raise ClearMaterialStored(
            f"the {kind} {name} is stored in clear: take it for known to others, delete its row and upload a new one",
            kind=kind,
            record=name,
        )
    if not sealer.sealed_here(record):
        raise _wrong_key(kek_file, f"{kind} {name}")


def _wrong_key(kek_file: Path, what: str) -> SealingKeyWrong:
    return SealingKeyWrong(
        f"the {what} was sealed with another key than the one in {kek_file}: restore the file made with the database",
        file=str(kek_file),
    )


def _token(path: Path) -> str:
    token = secret_files.read_or_make(path, lambda: secrets.token_urlsafe(32))
    if len(token) < SHORTEST_TOKEN:
        raise SecretFileUnusable(
            f"the token in {path} is shorter than {SHORTEST_TOKEN} characters: delete the file, a new one is made",
            file=str(path),
        )
    return token
