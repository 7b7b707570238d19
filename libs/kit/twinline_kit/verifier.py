"""People's tokens, resolved by the keys service."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

import grpc.aio

from twinline.keys.v1 import people_pb2 as pb
from twinline.keys.v1 import people_pb2_grpc as rpc
from twinline_kit.auth import Caller, Grant, Kind
from twinline_kit.errors import Error, Unauthenticated, Unavailable

_LIFETIME = 30.0
_MOST = 4096
_ROLES = {pb.ROLE_OBSERVER: Grant.OBSERVER, pb.ROLE_ADMIN: Grant.ADMIN}


class KeysVerifier:
    """A TokenVerifier that asks keys, and remembers an answer for 30 s: so long may a deleted token still work."""

    def __init__(self, channel: grpc.aio.Channel, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._people = rpc.PeopleServiceStub(channel)
        self._monotonic = monotonic
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()

    async def verify(self, token: str) -> Caller:
        """The person whose token this is; Unauthenticated when nobody's, Unavailable when keys does not say."""
        digest = hashlib.sha256(token.encode()).digest()  # so that no token stays in memory
        until, caller = self._known.get(digest, (0.0, None))
        if caller is None or until < self._monotonic():
            self._known.pop(digest, None)
            caller = await self._ask(token)
            self._known[digest] = (self._monotonic() + _LIFETIME, caller)
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
        return caller

    async def _ask(self, token: str) -> Caller:
        try:
            person = await self._people.Authenticate(pb.AuthenticateRequest(token=token))
        except Unauthenticated:
            raise
        except Error as error:
            # Whatever keys has against this service is not the caller's fault.
            raise Unavailable(f"cannot check tokens now: keys says {error.message}; try again later") from error
        role = _ROLES.get(person.role)
        return Caller(Kind.PERSON, person.name, frozenset({role} if role else ()))
