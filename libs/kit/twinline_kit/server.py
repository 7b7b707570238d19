"""One grpc.aio server with an API port (TLS and tokens) and a mesh port (mutual TLS)."""

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped, unused-ignore]
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped, unused-ignore]

from twinline_kit import auth, interceptors
from twinline_kit.auth import Access, TokenVerifier
from twinline_kit.client import MAX_MESSAGE, MAX_METADATA, Options
from twinline_kit.errors import FailedPrecondition
from twinline_kit.loops import Background, working
from twinline_kit.tls import Identity

log = logging.getLogger(__name__)

OPTIONS: Options = [
    # Two servers on one port would each get half of the calls: a taken port must be an error.
    ("grpc.so_reuseport", 0),
    # Else the core sheds new calls at random once a thousand or so wait for Python, as when a fleet reconnects.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 200_000),
    # Of one connection: each is memory that its caller asks for, a health check's without showing who it is.
    ("grpc.max_concurrent_streams", 1_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_metadata_size", MAX_METADATA),
    ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA),
    # Else each message of a quiet stream costs a ping.
    ("grpc.http2.bdp_probe", 0),
    # A peer that is gone without a word is noticed within 50 s, on streams that have nothing to say, too.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # Half-open connections must not pile up. Long enough for thousands of agents that come back at once.
    ("grpc.server_handshake_timeout_ms", 20_000),
]
"""How every server is tuned."""


class PortInUse(FailedPrecondition):
    """Another process listens on the address."""

    reason = "PORT_IN_USE"


class CannotListen(FailedPrecondition):
    """The address is not ours, not an address, or not allowed to us."""

    reason = "CANNOT_LISTEN"


@dataclass(frozen=True)
class Service:
    """One gRPC service: its full proto name, the generated function that adds it to a server, who may call what."""

    name: str
    register: Callable[[grpc.aio.Server], None]
    access: Access


@dataclass(frozen=True)
class Listen:
    """Where to listen: two `host:port`; port 0 takes a free one."""

    api: str
    mesh: str


@dataclass(frozen=True)
class Bound:
    """Where a server listens: two `host:port` with the real ports."""

    api: str
    mesh: str


@asynccontextmanager
async def serving(
    listen: Listen,
    services: Sequence[Service],
    background: Sequence[Background] = (),
    *,
    identity: Identity,
    verifier: TokenVerifier,
    grace: float = 5.0,
) -> AsyncIterator[Bound]:
    """Serve `services` on both ports within the block, with the background work beside them.

    Then say NOT_SERVING and turn new calls of people away; end the background work, of which much is calls between
    services, so that the mesh is served meanwhile; and give what is called still `grace` seconds to end.
    PortInUse or CannotListen when an address cannot be had; background work that fails ends the block with its error.
    """
    access = auth.merge([interceptors.INFRASTRUCTURE, *(service.access for service in services)])
    stopping = asyncio.Event()
    around = interceptors.Around(interceptors.concerns(access, verifier, stopping))
    server = grpc.aio.server(interceptors=[around], options=OPTIONS)
    checker = health.aio.HealthServicer()
    await _register(server, services, checker)
    pair = [(identity.key, identity.certificate)]
    try:
        api = _bind(server, listen.api, grpc.ssl_server_credentials(pair))
        mesh = _bind(server, listen.mesh, grpc.ssl_server_credentials(pair, identity.ca, require_client_auth=True))
        await server.start()
        log.info("serving", extra={"api": api, "mesh": mesh, "services": ",".join(each.name for each in services)})
        async with working(background):
            try:
                yield Bound(api, mesh)
            finally:
                stopping.set()
                await checker.enter_graceful_shutdown()
    finally:
        await server.stop(grace)
        log.info("stopped serving")


async def _register(server: grpc.aio.Server, services: Sequence[Service], checker: health.aio.HealthServicer) -> None:
    for service in services:
        service.register(server)
        await checker.set(service.name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    names = [service.name for service in services]
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials) -> str:
    try:
        port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise _why_not(address) from error
    return f"{address.rpartition(':')[0]}:{port}"


def _why_not(address: str) -> FailedPrecondition:
    """grpc says only that it failed; the operating system tells more."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, target in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(target)
                probe.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            text = f"{address} is in use: stop the process that listens there, or choose another port"
            return PortInUse(text, address=address)
        text = f"cannot listen on {address}: {(error.strerror or str(error)).lower()}; choose another address"
        return CannotListen(text, address=address)
    except ValueError:
        pass
    return CannotListen(f"cannot listen on {address}: give it as host:port and check the certificate", address=address)
