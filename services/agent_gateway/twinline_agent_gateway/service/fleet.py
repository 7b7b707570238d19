"""Agents, for the services above."""

import asyncio
from datetime import timedelta

import grpc.aio

from twinline.agent_gateway.v1 import fleet_pb2 as pb
from twinline.agent_gateway.v1 import fleet_pb2_grpc as rpc
from twinline_agent_gateway import convert
from twinline_agent_gateway.dispatch_streams import DispatchStream
from twinline_agent_gateway.enrollments import Enrollments
from twinline_agent_gateway.errors import StreamMalformed
from twinline_agent_gateway.router import Router
from twinline_agent_gateway.service import hello
from twinline_agent_gateway.settings import Settings
from twinline_agent_gateway.store import AgentStore
from twinline_kit import pages, times
from twinline_kit.clock import Clock
from twinline_kit.errors import InvalidArgument
from twinline_kit.ids import required_request_id

_TOKEN_LIFETIME = timedelta(hours=1)
_LONGEST_TOKEN_LIFETIME = timedelta(days=30)

Context = grpc.aio.ServicerContext[pb.DispatchRequest, pb.DispatchResponse]


class FleetService(rpc.FleetServiceServicer):
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
        self, request: pb.CreateEnrollmentRequest, context: object
    ) -> pb.CreateEnrollmentResponse:
        _check_enrollment(request)
        lifetime = _lifetime(request)
        agent_id, token = await self._enrollments.prepare(
            server=request.server, request_id=request.request_id, lifetime=lifetime
        )
        settings = self._settings
        return pb.CreateEnrollmentResponse(
            agent_id=agent_id,
            token=token,
            enroll_address=settings.advertised_enroll_address or settings.api_listen,
            connect_address=settings.advertised_connect_address or settings.mesh_listen,
            authority=self._ca,
        )

    async def GetAgent(self, request: pb.GetAgentRequest, context: object) -> pb.Agent:
        return await self._get(request.agent_id)

    async def ListAgents(self, request: pb.ListAgentsRequest, context: object) -> pb.ListAgentsResponse:
        size = pages.page_size(request.page_size)
        after = pages.after(request.page_token, filter="agents")
        found = await asyncio.to_thread(lambda: self._store.page(after=after, limit=size + 1, at=self._clock()))
        page, following = pages.slice(found, size, lambda known: known.agent.id, filter="agents")
        return pb.ListAgentsResponse(agents=map(convert.to_agent, page), next_page_token=following)

    async def RevokeAgent(self, request: pb.RevokeAgentRequest, context: object) -> pb.Agent:
        await asyncio.to_thread(self._store.revoke, request.agent_id)
        self._router.revoked(request.agent_id)
        return await self._get(request.agent_id)

    async def Dispatch(self, requests: object, context: Context) -> None:  # type: ignore[override]  # writes by itself
        first = await hello.first(context)
        if not isinstance(first, pb.DispatchRequest) or not first.hello.dispatcher:
            raise StreamMalformed("the first message was no hello with a dispatcher's name")
        dispatcher = DispatchStream(first.hello.dispatcher, forwarded=first.hello.forwarded)
        self._router.open(dispatcher)
        try:
            with dispatcher.served():
                await context.send_initial_metadata(())
                await self._serve(dispatcher, first, context)
        finally:
            self._router.close(dispatcher)

    async def _serve(self, dispatcher: DispatchStream, first: pb.DispatchRequest, context: Context) -> None:
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(dispatcher.send(context.write)),
                group.create_task(self._find(dispatcher)),
            ]
            await self._router.dispatch(dispatcher, first)
            while isinstance(message := await context.read(), pb.DispatchRequest):
                await self._router.dispatch(dispatcher, message)
            for task in beside:
                task.cancel()

    async def _find(self, dispatcher: DispatchStream) -> None:
        while True:
            await self._router.find(dispatcher)

    async def _get(self, agent_id: str) -> pb.Agent:
        return convert.to_agent(await asyncio.to_thread(lambda: self._store.get(agent_id, at=self._clock())))


def _check_enrollment(request: pb.CreateEnrollmentRequest) -> None:
    if not 0 < len(request.server) <= 255:
        raise InvalidArgument("server is empty or longer than 255 characters: name the server", field="server")
    required_request_id(request.request_id)


def _lifetime(request: pb.CreateEnrollmentRequest) -> timedelta:
    if not request.HasField("lifetime"):
        return _TOKEN_LIFETIME
    return times.given(request.lifetime, _LONGEST_TOKEN_LIFETIME, field="lifetime")
