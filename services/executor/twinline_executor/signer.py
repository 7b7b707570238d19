"""Key pairs whose private half stays in the keys service: a signature is a call."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncssh
import grpc.aio

from twinline.keys.v1 import cloud_keys_pb2 as pb
from twinline.keys.v1 import cloud_keys_pb2_grpc as rpc
from twinline_kit.errors import Error, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied

REMEMBERED_KEYS = 1000

# `ssh-rsa` last: asyncssh uses it with servers that are too old to say what they take.
_RSA = (b"rsa-sha2-512", b"rsa-sha2-256", b"ssh-rsa")

_REFUSALS = (NotFound, FailedPrecondition, InvalidArgument, PermissionDenied)
_SEAL_BROKEN = "SEAL_BROKEN"
"""The one INTERNAL of the keys service that has a name: the record was altered, and no waiting mends it."""


def is_refusal(error: Error) -> bool:
    """Whether the keys service says no, for good and by name.

    Whatever else it or the way to it answers passes, or may: a failover of its database, a bug that the next version
    does not have, a deadline. A run that waits is no worse off, and one that was refused does not come back.
    """
    return error.is_ours and (isinstance(error, _REFUSALS) or error.reason == _SEAL_BROKEN)


class RemoteKeyPair(asyncssh.SSHKeyPair):
    """A key pair for one connection. `error` is what the keys service said when it did not sign."""

    def __init__(self, public: asyncssh.SSHKey, sign: Callable[[bytes, str], Awaitable[bytes]]) -> None:
        algorithm = public.algorithm
        signatures = _RSA if algorithm == b"ssh-rsa" else (algorithm,)
        super().__init__(algorithm, algorithm, signatures, signatures, public.public_data, None)
        self._ask = sign
        self.error: Error | None = None

    async def sign_async(self, data: bytes) -> bytes:
        """Called by asyncssh in place of `sign`."""
        try:
            return await self._ask(data, self.sig_algorithm.decode())
        except Error as error:
            self.error = error
            raise


@dataclass(frozen=True, slots=True)
class _Known:
    public: asyncssh.SSHKey
    until: float


class Signer:
    """Makes key pairs for cloud keys. What it knows of a key is good for `remembered` seconds."""

    def __init__(self, channel: grpc.aio.Channel, *, remembered: float) -> None:
        self._keys = rpc.CloudKeyServiceStub(channel)
        self._remembered = remembered
        self._known: dict[str, _Known] = {}
        self._asking: dict[str, asyncio.Future[_Known]] = {}

    async def pair(self, key: str) -> RemoteKeyPair:
        """A key pair for one connection. Raises KEY_MATERIAL_MISSING, or what the keys service says."""
        public = await self._public(key)
        return RemoteKeyPair(public, lambda data, algorithm: self._sign(key, data, algorithm))

    async def check(self, key: str) -> None:
        """Return when a key pair can be made. Raises as `pair` does."""
        await self._public(key)

    async def _public(self, key: str) -> asyncssh.SSHKey:
        known = self._known.get(key)
        if known is None or time.monotonic() > known.until:
            known = await asyncio.shield(self._asked(key))
        return known.public

    def _asked(self, key: str) -> "asyncio.Future[_Known]":
        """One question, shared by all who need this key: a run on many hosts asks once."""
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.ensure_future(self._look_up(key))
            asking.add_done_callback(lambda done: self._answered(key, done))
        return asking

    def _answered(self, key: str, done: "asyncio.Future[_Known]") -> None:
        del self._asking[key]
        if not done.cancelled():
            done.exception()  # seen: those who waited may have gone

    async def _look_up(self, key: str) -> _Known:
        self._known.pop(key, None)
        found = await self._keys.GetCloudKey(pb.GetCloudKeyRequest(key=key))
        if not found.has_material:
            raise _material_missing(found)
        if len(self._known) >= REMEMBERED_KEYS:
            self._known.clear()
        known = _Known(asyncssh.import_public_key(found.public_key), time.monotonic() + self._remembered)
        self._known[key] = known
        return known

    async def _sign(self, key: str, data: bytes, algorithm: str) -> bytes:
        try:
            answer = await self._keys.Sign(pb.SignRequest(key=key, data=data, algorithm=algorithm))
        except Error:
            self._known.pop(key, None)
            raise
        return answer.signature


def _material_missing(key: pb.CloudKey) -> Error:
    error = FailedPrecondition(f"the private half of cloud key {key.name} is missing: upload its material", key=key.id)
    error.reason = "KEY_MATERIAL_MISSING"  # the class is the keys service's
    return error
