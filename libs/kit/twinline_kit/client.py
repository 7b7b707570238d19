"""Channels to other services: who we are, keepalive, a default deadline, and errors that come back as themselves.

The channel is wrapped, not intercepted: grpc.aio's stream interceptors pass every written message through a queue and
lose the reader's exceptions; a wrapped call costs one coroutine a message and nothing else.
"""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable, Generator
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from opentelemetry.trace import Span

from twinline_kit import telemetry
from twinline_kit.errors import Error, Unavailable, from_rpc_error
from twinline_kit.tls import Identity

DEFAULT_DEADLINE = 30.0
"""Seconds that a unary call may take when the caller names no timeout."""

MAX_MESSAGE = 16 << 20
MAX_METADATA = 64 << 10

Options = list[tuple[str, str | int]]


def mesh_channel(address: str, identity: Identity) -> grpc.aio.Channel:
    """A channel to the mesh port at `address` (host:port), on which we are `identity`. Calls raise kit errors."""
    credentials = grpc.ssl_channel_credentials(identity.ca, identity.key, identity.certificate)
    return _Channel(grpc.aio.secure_channel(address, credentials, options(address)), None)


def api_channel(address: str, ca_pem: bytes, token: str | None) -> grpc.aio.Channel:
    """A channel to the API port at `address` (host:port) for the person whose token this is. Calls raise kit errors."""
    credentials = grpc.ssl_channel_credentials(ca_pem)
    return _Channel(grpc.aio.secure_channel(address, credentials, options(address)), token)


def options(address: str) -> Options:
    """The settings of our channels."""
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE),
        ("grpc.max_metadata_size", MAX_METADATA),
        ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA),
        # Else each message of a quiet stream costs a ping.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 10_000),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        # A proxy that the environment names cannot reach this machine's loopback for us.
        ("grpc.enable_http_proxy", 0 if _is_loopback(address) else 1),
    ]


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Call:
    """A call in flight that raises kit errors. All else is the inner call's."""

    def __init__(self, inner: Any, method: str, span: Span | None) -> None:
        self._inner = inner
        self._method = method
        self._span = span

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __await__(self) -> Generator[Any, None, Any]:
        code = grpc.StatusCode.OK
        try:
            return (yield from self._inner.__await__())
        except grpc.RpcError as error:
            code = error.code()
            raise from_rpc_error(error, self._method) from error
        finally:
            if self._span is not None:
                telemetry.record_code(self._span, code.name, failed=code is not grpc.StatusCode.OK)
                self._span.end()

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async for message in self._inner:
                yield message
        except (grpc.RpcError, asyncio.CancelledError) as error:
            await self._explain(error)

    async def read(self) -> Any:
        try:
            return await self._inner.read()
        except (grpc.RpcError, asyncio.CancelledError) as error:
            return await self._explain(error)

    async def write(self, request: Any) -> None:
        try:
            await self._inner.write(request)
        except (grpc.RpcError, asyncio.CancelledError, asyncio.InvalidStateError) as error:
            await self._explain(error)

    async def done_writing(self) -> None:
        try:
            await self._inner.done_writing()
        except (grpc.RpcError, asyncio.CancelledError) as error:
            await self._explain(error)

    async def initial_metadata(self) -> Any:
        try:
            return await self._inner.initial_metadata()
        except (grpc.RpcError, asyncio.CancelledError) as error:
            await self._explain(error)

    async def wait_for_connection(self) -> None:
        try:
            await self._inner.wait_for_connection()
        except (grpc.RpcError, asyncio.CancelledError) as error:
            await self._explain(error)

    async def _explain(self, error: BaseException) -> None:
        """Raise what `error` means to our caller."""
        if isinstance(error, grpc.RpcError):
            raise from_rpc_error(error, self._method) from error
        if isinstance(error, asyncio.InvalidStateError) and self._inner.done():
            raise await self._ending() from error
        raise error

    async def _ending(self) -> Error:
        """Why nothing can be written any more: grpc.aio says only that the call is over."""
        code, details = await self._inner.code(), await self._inner.details()
        if code is grpc.StatusCode.OK:
            return Unavailable("the peer ended the stream")
        trailers = await self._inner.trailing_metadata()
        return from_rpc_error(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, details))


class _Method:
    """One method of a stub: adds what each call carries."""

    def __init__(self, inner: Callable[..., Any], method: str, token: str | None, deadline: float | None) -> None:
        self._inner = inner
        self._method = method
        self._deadline = deadline
        self._standing = [("authorization", f"Bearer {token}")] if token else []

    def __call__(self, *request: Any, timeout: float | None = None, metadata: Any = None, **others: Any) -> _Call:
        span = None
        if self._standing or telemetry.is_on():
            carrier: dict[str, str] = {}
            span = telemetry.calling_span(self._method, carrier) if telemetry.is_on() else None
            metadata = [*(metadata or ()), *self._standing, *carrier.items()]
        timeout = self._deadline if timeout is None else timeout
        call = self._inner(*request, timeout=timeout, metadata=metadata, **others)
        if span is not None and self._deadline is None:
            call.add_done_callback(lambda _: span.end())  # a stream: nobody need read it to its end
            return _Call(call, self._method, None)
        return _Call(call, self._method, span)


class _Channel(grpc.aio.Channel):
    """A channel whose calls are `_Call`s."""

    def __init__(self, inner: grpc.aio.Channel, token: str | None) -> None:
        self._inner = inner
        self._token = token

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Method(self._inner.unary_unary(method, *args, **kwargs), method, self._token, DEFAULT_DEADLINE)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Method(self._inner.unary_stream(method, *args, **kwargs), method, self._token, None)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Method(self._inner.stream_unary(method, *args, **kwargs), method, self._token, None)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Method(self._inner.stream_stream(method, *args, **kwargs), method, self._token, None)

    async def close(self, grace: float | None = None) -> None:
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._inner.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.close()
