"""What happens around every RPC: `CONCERNS`, outermost first, the same for unary and streaming handlers.

A concern wraps the call, never its messages: a stream that lives for days costs nothing more than a short one. Only a
request that is no stream is looked at, once: its texts hold no NUL.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from grpc import StatusCode

from twinline_kit import auth, db, logs, telemetry, texts
from twinline_kit.auth import ANONYMOUS, Access, Caller, Grant, TokenVerifier
from twinline_kit.errors import Error, Internal, InvalidArgument, Unauthenticated, Unavailable, to_status
from twinline_kit.tls import parse_uri

log = logging.getLogger(__name__)

INFRASTRUCTURE: Access = {
    "/grpc.health.v1.Health/Check": frozenset({Grant.ANYONE}),
    "/grpc.health.v1.Health/List": frozenset({Grant.ANYONE}),
    "/grpc.health.v1.Health/Watch": frozenset({Grant.ANYONE}),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": frozenset({Grant.ANYONE}),
}
"""What every server offers beside its services: open to anyone, not traced, logged at debug."""

Context = grpc.aio.ServicerContext[Any, Any]
"""What grpc hands every RPC beside its request."""

_DURATION = telemetry.meter().create_histogram(
    "rpc.server.duration", "s", "time to serve an RPC; a stream's is its life"
)

_MAX_TOKEN = 1024
_BEARER = "bearer "


@dataclass
class Call:
    """One RPC being served."""

    method: str
    context: Context
    trace_id: str = field(default_factory=lambda: os.urandom(16).hex())
    caller: Caller = ANONYMOUS

    def header(self, name: str) -> str:
        """The first metadata value of that name, or ""."""
        for key, value in self.context.invocation_metadata() or ():
            if key == name:
                return value if isinstance(value, str) else value.decode(errors="replace")
        return ""


Proceed = Callable[[], Awaitable[Any]]
Concern = Callable[[Call, Proceed], Awaitable[Any]]


async def trace(call: Call, proceed: Proceed) -> Any:
    """One span an RPC, when telemetry is on."""
    if not telemetry.is_on() or call.method in INFRASTRUCTURE:
        return await proceed()
    with telemetry.serving_span(call.method, {telemetry.TRACEPARENT: call.header(telemetry.TRACEPARENT)}) as span:
        call.trace_id = telemetry.current_trace_id()
        try:
            return await proceed()
        finally:
            code = _code(call)
            telemetry.record_code(span, code.name, failed=code in (StatusCode.INTERNAL, StatusCode.UNKNOWN))


async def write_line(call: Call, proceed: Proceed) -> Any:
    """One log line and one measurement an RPC, when it is over; lines written meanwhile say which RPC they are of."""
    logs.rpc.set({"rpc": call.method, "peer": call.context.peer(), "trace_id": call.trace_id})
    started = time.monotonic()
    cancelled = False
    try:
        return await proceed()
    except asyncio.CancelledError:
        cancelled = True
        raise
    finally:
        level = logging.DEBUG if call.method in INFRASTRUCTURE else logging.INFO
        code = StatusCode.CANCELLED if cancelled else _code(call)
        spent = time.monotonic() - started
        _DURATION.record(spent, {"rpc.method": call.method.lstrip("/"), "rpc.grpc.status_code": code.name})
        if log.isEnabledFor(level):
            milliseconds = round(spent * 1000, 1)
            log.log(level, "rpc", extra={"caller": str(call.caller), "code": code.name, "ms": milliseconds})


async def translate_errors(call: Call, proceed: Proceed) -> Any:
    """Errors become statuses: ours with their details, all others opaque and in the log with their traceback.

    A database that is away is no bug: the caller is told to come again.
    """
    try:
        return await proceed()
    except grpc.aio.AbortError:
        raise
    except Exception as error:
        expected = _expected(error)
        if expected is None:
            log.exception("unexpected error")
            expected = Internal(f"internal error (trace {call.trace_id})", trace_id=call.trace_id)
        elif isinstance(expected, db.DatabaseUnavailable):
            log.exception("the database is away")
        status = to_status(expected)
        await call.context.abort(expected.code, status.details, tuple(status.trailing_metadata or ()))


def authorize(access: Access, verifier: TokenVerifier) -> Concern:
    """Only those whom `access` names get through; the caller is then known to the handler by `auth.caller()`."""

    async def check(call: Call, proceed: Proceed) -> Any:
        allowed = access.get(call.method, frozenset())
        certified = certified_caller(call.context)
        if certified is None and not auth.is_open(allowed):
            call.caller = await bearer(call, verifier)
        else:
            call.caller = certified or ANONYMOUS
        auth.enter(call.caller)
        auth.require(call.caller, allowed, call.method)
        return await proceed()

    return check


def certified_caller(context: Context) -> Caller | None:
    """Whom the peer's certificate speaks for; None on the API port, where nobody is asked for a certificate."""
    shown = context.auth_context()
    if "x509_pem_cert" not in shown:
        return None
    for uri in shown.get("peer_spiffe_id", ()):
        try:
            return auth.certified(*parse_uri(uri.decode(errors="replace")))
        except InvalidArgument:
            continue
    return ANONYMOUS


async def bearer(call: Call, verifier: TokenVerifier) -> Caller:
    """The person whose token the call carries, or ANONYMOUS when it carries none."""
    header = call.header("authorization")
    if not header:
        return ANONYMOUS
    token = header[len(_BEARER) :].strip()
    if header[: len(_BEARER)].lower() != _BEARER or not 0 < len(token) <= _MAX_TOKEN:
        raise Unauthenticated("the authorization header is no bearer token: send 'Bearer TOKEN'")
    return await verifier.verify(token)


def turn_away(stopping: asyncio.Event) -> Concern:
    """Refuse what people call while the server stops, before there is anything that would not be finished."""

    async def check(call: Call, proceed: Proceed) -> Any:
        if stopping.is_set() and call.method not in INFRASTRUCTURE and certified_caller(call.context) is None:
            raise Unavailable("this server is about to stop: call again in a moment")
        return await proceed()

    return check


def concerns(access: Access, verifier: TokenVerifier, stopping: asyncio.Event) -> tuple[Concern, ...]:
    """Everything that surrounds a handler, outermost first."""
    return (trace, write_line, translate_errors, turn_away(stopping), authorize(access, verifier))


class Around(grpc.aio.ServerInterceptor):
    """Puts the concerns around each handler, once a method."""

    def __init__(self, surrounding: Iterable[Concern]) -> None:
        self._concerns = tuple(surrounding)
        self._wrapped: dict[str, tuple[Any, Any]] = {}

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler to run instead; None, which grpc answers with UNIMPLEMENTED, where there is no handler."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = self._wrapped[method] = (handler, _surround(handler, method, self._concerns))
        return known[1]


def _surround(handler: Any, method: str, surrounding: tuple[Concern, ...]) -> Any:
    inner = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

    async def run(request: Any, context: Context) -> Any:
        call = Call(method, context)

        async def handle() -> Any:
            if not handler.request_streaming:
                texts.refuse_nul(request)
            answer = inner(request, context)
            if not isinstance(answer, AsyncIterable):
                return await answer
            # A generator's messages are written here, as grpc would: so no layer above sees them.
            async for message in answer:
                await context.write(message)
            return None

        proceed: Proceed = handle
        for concern in reversed(surrounding):
            proceed = _bind(concern, call, proceed)
        return await proceed()

    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    make = kinds[handler.request_streaming, handler.response_streaming]
    return make(run, handler.request_deserializer, handler.response_serializer)


def _bind(concern: Concern, call: Call, proceed: Proceed) -> Proceed:
    return lambda: concern(call, proceed)


def _expected(error: BaseException) -> Error | None:
    """The error of ours that `error` is or means, or that is all a task group has to say."""
    if isinstance(error, Error):
        return error
    if isinstance(error, db.AWAY):
        # Nothing of what it says: it holds the statement, and may hold values.
        return db.DatabaseUnavailable("the database of this service is away: try again in a moment; its log says why")
    if not isinstance(error, BaseExceptionGroup):
        return None
    found = [_expected(leaf) for leaf in _leaves(error)]
    return found[0] if all(found) else None


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _code(call: Call) -> StatusCode:
    code: Any = call.context.code()
    if isinstance(code, StatusCode):
        return code
    return next((each for each in StatusCode if each.value[0] == code), StatusCode.OK)
