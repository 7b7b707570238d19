"""Whose token it is."""

import asyncio
import hashlib

from twinline_keys.models import Role
from twinline_keys.store import PeopleStore
from twinline_kit.auth import Caller, Grant, Kind

GRANTS = {Role.OBSERVER: frozenset({Grant.OBSERVER}), Role.ADMIN: frozenset({Grant.ADMIN, Grant.OBSERVER})}


class StoredTokens:
    """Resolves tokens from this service's own store. Asked anew each time, so that a withdrawn token stops at once."""

    def __init__(self, store: PeopleStore) -> None:
        self._store = store

    async def verify(self, token: str) -> Caller:
        """The person whose token this is. Raises TokenUnknown."""
        person = await asyncio.to_thread(self._store.by_token, token_hash(token))
        return Caller(Kind.PERSON, person.name, GRANTS[Role(person.role)])


def token_hash(token: str) -> str:
    """What is stored of a token. Tokens are random, so that a plain hash of one cannot be guessed from."""
    return hashlib.sha256(token.encode()).hexdigest()
