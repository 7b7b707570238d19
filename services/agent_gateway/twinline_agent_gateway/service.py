"""The RPCs: check, act, answer."""

import asyncio
import logging
import math
import time
from datetime import timedelta
from typing import Any

import grpc.aio

from twinline.agent_gateway.v1 import agents_pb2, agents_pb2_grpc, fleet_pb2, fleet_pb2_grpc
from twinline_agent_gateway import convert
from twinline_agent_gateway.dispatch import Dispatcher
from twinline_agent_gateway.enrollments import Enrollments
from twinline_agent_gateway.errors import StreamMalformed
from twinline_agent_gateway.presence import Presence
from twinline_agent_gateway.router import Router
from twinline_agent_gateway.settings import Settings
from twinline_agent_gateway.store import AgentStore, Connecting
from twinline_agent_gateway.streams import AgentStream, Context, Writers
from twinline_kit import pages
from twinline_kit.auth import caller
from twinline_kit.clock import Clock
from twinline_kit.errors import InvalidArgument
from twinline_kit.ids import required_request_id
from twinline_kit.texts import printable

log = logging.getLogger(__name__)

HELLO_WITHIN = 20.0
MAX_REPORT = 128 << 10
"""Bytes of one report: a chunk of output and what is said about it."""

_TOKEN_LIFETIME = timedelta(hours=1)
_LONGEST_TOKEN_LIFETIME = timedelta(days=30)

DispatchContext = grpc.aio.ServicerContext[fleet_pb2.DispatchRequest, fleet_pb2.DispatchResponse]


class AgentService(agents_pb2_grpc.AgentServiceServicer):
    """What agents dial."""

    def __init__(
        self, enrollments: Enrollments, presence: Presence, router: Router, writers: Writers, *, heartbeat: float
    ) -> None:
        self._enrollments = enrollments
        self._presence = presence
        self._router = router
        self._writers = writers
        self._heartbeat = heartbeat

    async def Enroll(self, request: agents_pb2.EnrollRequest, context: object) -> agents_pb2.EnrollResponse:
        return await self._enrollments.enroll(request.token, request.certificate_request)

    async def Renew(self, request: agents_pb2.RenewRequest, context: object) -> agents_pb2.EnrollResponse:
        return await self._enrollments.renew(caller().name, request.certificate_request)

    async def Connect(self, requests: object, context: Context) -> None:  # type: ignore[override]  # writes by itself
        agent_id = caller().name
        epoch = await self._presence.connect(await self._arrival(agent_id, context))
        stream = AgentStream(agent_id, epoch, context, self._writers.queue)
        try:
            await context.write(agents_pb2.GatewayMessage(welcome=self._welcome(epoch)))
            self._router.attach(stream)
            await self._listen(stream, context)
        except asyncio.CancelledError:
            if why := stream.was_cut():
                raise why from None
            raise
        finally:
            self._router.detach(stream)
            self._presence.disconnect(agent_id, epoch)

    async def _arrival(self, agent_id: str, context: Context) -> Connecting:
        """What hello says, and no more than that: the message would stay in memory as long as the stream."""
        first = await _first(context)
        if not isinstance(first, agents_pb2.AgentMessage) or not first.HasField("hello"):
            raise StreamMalformed("the first message was no hello: update the agent")
        return Connecting(agent_id, printable(first.hello.version[:64]), _short(first.hello.facts))

    async def _listen(self, stream: AgentStream, context: Context) -> None:
        while isinstance(message := await context.read(), agents_pb2.AgentMessage):
            stream.heard = math.inf  # while its reports wait to be taken, silence is not the agent's fault
            if message.HasField("report"):
                for report in message.report.reports:
                    if len(report.data) > MAX_REPORT or len(report.message) > MAX_REPORT:
                        raise StreamMalformed(f"a report has more than {MAX_REPORT} bytes: send 64 KiB at a time")
                if forged := await self._router.accept(stream.agent_id, message.report.reports):
                    _note_forged(stream, forged)
            elif not message.HasField("heartbeat"):
                log.warning("unknown message ignored", extra={"agent": stream.agent_id})
            stream.heard = time.monotonic()

    def _welcome(self, epoch: int) -> agents_pb2.Welcome:
        welcome = agents_pb2.Welcome(epoch=epoch)
        welcome.heartbeat.FromNanoseconds(int(self._heartbeat * 1e9))
        return welcome


class FleetService(fleet_pb2_grpc.FleetServiceServicer):
    """Agents, for the services above."""

    def __init__(
        self, store: AgentStore, enrollments: Enrollments, router: Router, settings: Settings, clock: Clock
    ) -> None:
        self._store = store
        self._enrollments = enrollments
        self._router = router
        self._settings = settings
        self._ca = settings.identity().ca
        self._clock = clock

    async def CreateEnrollment(
        self, request: fleet_pb2.CreateEnrollmentRequest, context: object
    ) -> fleet_pb2.CreateEnrollmentResponse:
        _check_enrollment(request)
        lifetime = request.lifetime.ToTimedelta() if request.HasField("lifetime") else _TOKEN_LIFETIME
        agent_id, token = await self._enrollments.prepare(
            server=request.server, request_id=request.request_id, lifetime=lifetime
        )
        settings = self._settings
        return fleet_pb2.CreateEnrollmentResponse(
            agent_id=agent_id,
            token=token,
            enroll_address=settings.advertised_enroll_address or settings.api_listen,
            connect_address=settings.advertised_connect_address or settings.mesh_listen,
            authority=self._ca,
        )

    async def GetAgent(self, request: fleet_pb2.GetAgentRequest, context: object) -> fleet_pb2.Agent:
        return await self._get(request.agent_id)

    async def ListAgents(self, request: fleet_pb2.ListAgentsRequest, context: object) -> fleet_pb2.ListAgentsResponse:
        size = pages.page_size(request.page_size)
        after = pages.after(request.page_token, filter="agents")
        found = await asyncio.to_thread(lambda: self._store.page(after=after, limit=size + 1, at=self._clock()))
        page, following = pages.slice(found, size, lambda known: known.agent.id, filter="agents")
        return fleet_pb2.ListAgentsResponse(agents=map(convert.to_agent, page), next_page_token=following)

    async def RevokeAgent(self, request: fleet_pb2.RevokeAgentRequest, context: object) -> fleet_pb2.Agent:
        await asyncio.to_thread(self._store.revoke, request.agent_id)
        self._router.revoked(request.agent_id)
        return await self._get(request.agent_id)

    async def Dispatch(self, requests: object, context: DispatchContext) -> None:  # type: ignore[override]  # as above
        first = await _first(context)
        if not isinstance(first, fleet_pb2.DispatchRequest) or not first.hello.dispatcher:
            raise StreamMalformed("the first message was no hello with a dispatcher's name")
        dispatcher = Dispatcher(first.hello.dispatcher, forwarded=first.hello.forwarded)
        self._router.open(dispatcher)
        try:
            await context.send_initial_metadata(())
            await self._serve(dispatcher, first, context)
        except asyncio.CancelledError:
            if why := dispatcher.was_cut():
                raise why from None
            raise
        finally:
            self._router.close(dispatcher)

    async def _serve(self, dispatcher: Dispatcher, first: fleet_pb2.DispatchRequest, context: DispatchContext) -> None:
        async with asyncio.TaskGroup() as group:
            sender = group.create_task(dispatcher.send(context.write))
            await self._router.dispatch(dispatcher, first)
            while isinstance(message := await context.read(), fleet_pb2.DispatchRequest):
                await self._router.dispatch(dispatcher, message)
            sender.cancel()

    async def _get(self, agent_id: str) -> fleet_pb2.Agent:
        return convert.to_agent(await asyncio.to_thread(lambda: self._store.get(agent_id, at=self._clock())))


async def _first(context: grpc.aio.ServicerContext[Any, Any]) -> object:
    try:
        async with asyncio.timeout(HELLO_WITHIN):
            return await context.read()
    except TimeoutError:
        raise StreamMalformed(f"there was no hello within {HELLO_WITHIN:.0f} s: say it at once") from None


def _check_enrollment(request: fleet_pb2.CreateEnrollmentRequest) -> None:
    if not 0 < len(request.server) <= 255:
        raise InvalidArgument("server is empty or longer than 255 characters: name the server", field="server")
    required_request_id(request.request_id)
    if request.HasField("lifetime") and not (timedelta() < request.lifetime.ToTimedelta() <= _LONGEST_TOKEN_LIFETIME):
        raise InvalidArgument("lifetime is not between 0 and 30 days", field="lifetime")


def _short(facts: object) -> dict[str, str]:
    """At most 32 facts of at most 256 printable characters."""
    items = sorted(dict(facts).items())[:32]  # type: ignore[call-overload]  # a map of the protobuf runtime
    return {printable(name[:64]): printable(value[:256]) for name, value in items}


def _note_forged(stream: AgentStream, count: int) -> None:
    if not stream.forged:
        log.warning("reports on another agent's tasks dropped", extra={"agent": stream.agent_id, "count": count})
    stream.forged += count
