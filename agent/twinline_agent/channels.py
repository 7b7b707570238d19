"""Connections to the gateway. They go out; nothing here ever listens."""

import ipaddress

import grpc
import grpc.aio

MAX_MESSAGE = 16 << 20


def anonymous(address: str, authority: str) -> grpc.aio.Channel:
    """A channel that trusts `authority` (PEM) and shows nothing: for enrolment."""
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(authority.encode()), _options(address))


def identified(address: str, authority: str, key: bytes, certificate: str) -> grpc.aio.Channel:
    """A channel that shows our certificate."""
    credentials = grpc.ssl_channel_credentials(authority.encode(), key, certificate.encode())
    return grpc.aio.secure_channel(address, credentials, _options(address))


def _options(address: str) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE),
        # Else each message of a quiet stream costs a ping.
        ("grpc.http2.bdp_probe", 0),
        # Notices a gateway that is gone without a word.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.max_pings_without_data", 0),
        # Else two channels with the same credentials share one connection, and an old certificate outlives its channel.
        ("grpc.use_local_subchannel_pool", 1),
        # A proxy that the environment names is used (CONNECT), but it cannot reach this host's loopback for us.
        ("grpc.enable_http_proxy", 0 if _is_loopback(address) else 1),
    ]


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
