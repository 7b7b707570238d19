"""Opens one SSH connection, and says in typed words why it cannot."""

import asyncio
from dataclasses import dataclass
from typing import Any

import asyncssh

from twinline_executor.reasons import TaskReason
from twinline_executor.signer import RemoteKeyPair, Signer, is_refusal
from twinline_kit.errors import Error

ASKING = 5.0
"""Seconds that the use of an open connection waits for the keys service to say that its key is still there."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and as whom to log in. An empty host key is learned at first contact."""

    target_id: str
    host: str
    port: int
    username: str
    cloud_key: str
    host_key: str

    @property
    def address(self) -> tuple[str, int, str, str]:
        """What connections are shared by."""
        return self.host, self.port, self.username, self.cloud_key


class LineDown(Exception):
    """A host cannot be reached. `passing`: waiting may cure it."""

    def __init__(self, reason: str, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.passing = passing


_NOTHING_OF_OUR_ACCOUNT: dict[str, Any] = {
    "config": None,
    "agent_path": None,
    "x509_trusted_certs": None,
    "x509_trusted_cert_paths": [],
}
# First what is cheapest on both sides, then all that asyncssh takes by default: old images have no better. Written out
# here, for asyncssh would look for them among all it knows at every login.
_OFFERED = asyncssh.SSHClientConnectionOptions(
    kex_algs="^curve25519-sha256,curve25519-sha256@libssh.org", encryption_algs="^aes128-gcm@openssh.com",
    **_NOTHING_OF_OUR_ACCOUNT,
)  # fmt: skip
_KEX = [algorithm.decode() for algorithm in _OFFERED.kex_algs]
_CIPHERS = [algorithm.decode() for algorithm in _OFFERED.encryption_algs]


class _Client(asyncssh.SSHClient):
    """Accepts the pinned host key, or any where none is pinned yet."""

    def __init__(self, pinned: bytes) -> None:
        self._pinned = pinned

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        return not self._pinned or key.public_data == self._pinned


def host_key_line(key: asyncssh.SSHKey) -> str:
    """A public key as one OpenSSH line without comment."""
    return " ".join(key.export_public_key().decode().split()[:2])


async def log_in(
    endpoint: Endpoint, signer: Signer, *, connect_timeout: float, keepalive: float
) -> asyncssh.SSHClientConnection:
    """A connection to the endpoint, whose host key is the pinned one. Raises LineDown."""
    try:
        pair = await signer.pair(endpoint.cloud_key)
    except Error as error:
        raise _keys_say(error) from error
    try:
        pinned = asyncssh.import_public_key(endpoint.host_key) if endpoint.host_key else None
        # A pinned key's kind goes first, and others stay allowed: only then does a changed host say what it has become.
        host_keys = "^" + (b",".join(pinned.sig_algorithms).decode() if pinned else "ssh-ed25519")
        connection, _ = await asyncssh.create_connection(
            lambda: _Client(pinned.public_data if pinned else b""), endpoint.host, endpoint.port,
            username=endpoint.username, client_keys=[pair], known_hosts=([], [], []), server_host_key_algs=host_keys,
            kex_algs=_KEX, encryption_algs=_CIPHERS, compression_algs=None, preferred_auth=["publickey"],
            connect_timeout=connect_timeout, login_timeout=connect_timeout,
            keepalive_interval=keepalive, keepalive_count_max=3, **_NOTHING_OF_OUR_ACCOUNT,
        )  # fmt: skip
    except (Error, OSError, asyncssh.Error, TimeoutError, ValueError) as error:
        raise _explain(endpoint, error, pair) from error
    return connection


async def may_go_on(endpoint: Endpoint, signer: Signer) -> None:
    """Return unless the keys service says that nobody may log in with this key any more. Raises LineDown."""
    try:
        async with asyncio.timeout(ASKING):
            await signer.check(endpoint.cloud_key)
    except TimeoutError:
        pass  # its silence ends nothing that works
    except Error as error:
        if is_refusal(error):  # nor do its own troubles
            raise _keys_say(error) from error


def _keys_say(error: Error) -> LineDown:
    if is_refusal(error):
        return LineDown(error.reason, error.message, passing=False)
    return LineDown(TaskReason.KEYS_UNAVAILABLE, f"the keys service does not answer: {error.message}", passing=True)


def _explain(endpoint: Endpoint, error: Exception, pair: RemoteKeyPair) -> LineDown:
    where = f"{endpoint.host} port {endpoint.port}"
    if pair.error is not None:
        return _keys_say(pair.error)
    match error:
        case asyncssh.HostKeyNotVerifiable():
            message = (
                f"{where} shows another host key than the one pinned; if the host was rebuilt, apply its new host key"
            )
            return LineDown(TaskReason.HOST_KEY_MISMATCH, message, passing=False)
        case asyncssh.PermissionDenied():
            message = f"{where} does not accept the cloud key for {endpoint.username}; check its authorized_keys"
            return LineDown(TaskReason.AUTH_REFUSED, message, passing=False)
        case asyncssh.KeyExchangeFailed():
            return LineDown(TaskReason.ALGORITHMS_REFUSED, f"no common algorithm with {where}: {error}", passing=False)
        case asyncssh.KeyImportError() | ValueError():
            return LineDown(
                TaskReason.HOST_KEY_MALFORMED, f"the host key pinned for {where} cannot be read: {error}", passing=False
            )
    why = str(error) or type(error).__name__
    message = f"no SSH connection to {where}: {why}; check the address, the host and its inbound rule for the port"
    return LineDown(TaskReason.PORT_UNREACHABLE, message, passing=True)
