"""The one stream to the gateway: dial, talk, dial again."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress

import grpc
import grpc.aio

from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline.agent_gateway.v1 import agents_pb2_grpc as rpc
from twinline_agent import __version__, channels, facts
from twinline_agent.enrollment import Enrollment
from twinline_agent.errors import Fatal, Refused
from twinline_agent.user_data import UserData
from twinline_agent.work import Work

log = logging.getLogger(__name__)

FATAL = frozenset({"AGENT_REVOKED", "AGENT_UNKNOWN", "ENROLLMENT_REFUSED"})
"""Reasons of the gateway that waiting cannot cure: revoked, unknown, token spent by another machine."""

REASON_KEY = "twinline-reason"
"""The trailer that has the reason of a refusal. Who is not the gateway, such as a proxy that says 403, sends none."""

DENIED = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
"""Answers of somebody who is not asked again soon."""

SETTLED = 10.0
"""Seconds after which a stream counts as a good one."""

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_WELCOME_WITHIN = 30.0
_HEARTBEAT = 30.0
_LONGEST_DRAIN = 600.0

Call = grpc.aio.StreamStreamCall[pb.AgentMessage, pb.GatewayMessage]
Delays = Callable[[float], Iterator[float]]
Session = Callable[[], Awaitable[float | None]]


def backoff(longest: float = _FIRST_WAIT) -> Iterator[float]:
    """Seconds to wait: they double from `longest` to 30, and half of each is left to chance."""
    while True:
        yield longest * random.uniform(0.5, 1.0)  # spreads load, hides nothing
        longest = min(longest * 2, _LONGEST_WAIT)


async def serve(session: Session, delays: Delays = backoff) -> None:
    """Have one session after another. Ends by cancellation, or raises Refused when waiting cannot help.

    A session returns how long the gateway asked to stay away, or None when the line just ended.
    """
    waits = delays(_FIRST_WAIT)
    while True:
        opened = time.monotonic()
        away, denied = await _attempt(session)
        if away is not None or time.monotonic() - opened > SETTLED:
            waits = delays(_FIRST_WAIT)
        elif denied:
            waits = delays(_LONGEST_WAIT)
        await asyncio.sleep(next(waits) if away is None else away)


async def _attempt(session: Session) -> tuple[float | None, bool]:
    """How long to stay away, and whether somebody denied us."""
    try:
        return await session(), False
    except asyncio.CancelledError:
        # grpc.aio also says so of calls that ended for reasons of their own.
        if (task := asyncio.current_task()) is None or task.cancelling():
            raise
        log.warning("stream lost", extra={"why": "the call was given up"})
    except Exception as error:  # noqa: BLE001  # an agent that ends cannot be mended from afar
        return None, _judge(error)
    return None, False


class Stream:
    """Sessions with the gateway at the address of the user-data."""

    def __init__(self, user_data: UserData, enrollment: Enrollment, work: Work) -> None:
        self._user_data = user_data
        self._enrollment = enrollment
        self._work = work
        self._heartbeat = _HEARTBEAT

    async def session(self) -> float | None:
        """Dial and talk until the stream ends. Raises AioRpcError, alone or in a group, when it was cut or refused."""
        certificate = await self._enrollment.certificate()
        address, authority = self._user_data.connect_address, self._user_data.authority
        async with channels.identified(address, authority, self._enrollment.key(), certificate.pem) as channel:
            stub: rpc.AgentServiceAsyncStub = rpc.AgentServiceStub(channel)
            call = stub.Connect()
            try:
                await self._greet(call)
                return await self._talk(call, stub)
            finally:
                call.cancel()

    async def _greet(self, call: Call) -> None:
        hello = pb.Hello(version=__version__, facts=facts.facts())
        self._work.watcher.leave_all()
        async with asyncio.timeout(_WELCOME_WITHIN):
            with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):  # the reader is told why
                await call.write(pb.AgentMessage(hello=hello))
            first = await call.read()
        if isinstance(first, pb.GatewayMessage) and first.HasField("welcome"):
            self._heartbeat = first.welcome.heartbeat.ToNanoseconds() / 1e9 or _HEARTBEAT
            log.info("connected", extra={"epoch": first.welcome.epoch})

    async def _talk(self, call: Call, stub: "rpc.AgentServiceAsyncStub") -> float | None:
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(self._send(call)),
                group.create_task(self._enrollment.keep_fresh(stub)),
            ]
            try:
                return await self._listen(call)
            finally:
                for task in beside:
                    task.cancel()

    async def _listen(self, call: Call) -> float | None:
        while isinstance(message := await call.read(), pb.GatewayMessage):
            body = message.WhichOneof("body")
            if body == "orders":
                await self._work.obey(message.orders)
            elif body == "drain":
                away = message.drain.come_back_after.ToNanoseconds() / 1e9
                log.info("gateway drains", extra={"come_back_after": away})
                return min(max(0.0, away), _LONGEST_DRAIN)
            else:
                log.warning("unknown message ignored", extra={"body": str(body)})
        return None

    async def _send(self, call: Call) -> None:
        alive = True
        while alive:
            if reports := await self._work.watcher.next_reports(self._heartbeat):
                alive = await _write(call, pb.AgentMessage(report=pb.Report(reports=reports)))
            else:
                alive = await _write(call, pb.AgentMessage(heartbeat=pb.Heartbeat()))


async def _write(call: Call, message: pb.AgentMessage) -> bool:
    """Write, unless the call is over. Why it is over is for the reader to find out: the call's status tells."""
    try:
        await call.write(message)
    except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
        return False
    return True


def _judge(error: Exception) -> bool:
    """Log why a session ended, and tell whether it was denied; raise Fatal when another one would end the same way."""
    denied = False
    for each in _leaves(error):
        if isinstance(each, Fatal):
            raise each from None
        if isinstance(each, grpc.aio.AioRpcError):
            if _reason(each) in FATAL:
                raise Refused(f"the gateway refused: {each.details()} ({each.code().name})") from None
            denied = denied or each.code() in DENIED
            log.warning("stream lost", extra={"code": each.code().name, "why": each.details()})
        elif isinstance(each, OSError):  # timeouts too
            log.warning("stream lost", extra={"why": str(each) or type(each).__name__})
        else:
            log.error("stream failed unexpectedly", exc_info=each)
    return denied


def _reason(error: grpc.aio.AioRpcError) -> str:
    trailers: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()
    return next((str(value) for key, value in trailers if key == REASON_KEY), "")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for each in error.exceptions:
        yield from _leaves(each)
