"""What agents dial."""

import logging
import math
import time
from datetime import timedelta

from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline.agent_gateway.v1 import agents_pb2_grpc as rpc
from twinline_agent_gateway.enrollments import Enrollments
from twinline_agent_gateway.errors import StreamMalformed
from twinline_agent_gateway.presence import Presence
from twinline_agent_gateway.router import Router
from twinline_agent_gateway.service import hello
from twinline_agent_gateway.store import Connecting
from twinline_agent_gateway.streams import AgentStream, Context, Writers
from twinline_kit.auth import caller
from twinline_kit.texts import printable
from twinline_kit.times import duration

log = logging.getLogger(__name__)

MAX_REPORT = 128 << 10
"""Bytes of one report: a chunk of output and what is said about it."""

MAX_MESSAGE = 1000
"""Characters of the words in one report; the rest is cut off."""


class AgentService(rpc.AgentServiceServicer):
    """What agents dial."""

    def __init__(
        self, enrollments: Enrollments, presence: Presence, router: Router, writers: Writers, *, heartbeat: float
    ) -> None:
        self._enrollments = enrollments
        self._presence = presence
        self._router = router
        self._writers = writers
        self._heartbeat = heartbeat

    async def Enroll(self, request: pb.EnrollRequest, context: object) -> pb.EnrollResponse:
        return await self._enrollments.enroll(request.token, request.certificate_request)

    async def Renew(self, request: pb.RenewRequest, context: object) -> pb.EnrollResponse:
        return await self._enrollments.renew(caller().name, request.certificate_request)

    async def Connect(self, requests: object, context: Context) -> None:  # type: ignore[override]  # writes by itself
        agent_id = caller().name
        epoch = await self._presence.connect(await self._arrival(agent_id, context))
        stream = AgentStream(agent_id, epoch, context, self._writers.queue)
        try:
            with stream.served():
                await context.write(pb.GatewayMessage(welcome=self._welcome(epoch)))
                self._router.attach(stream)
                await self._listen(stream, context)
        finally:
            self._router.detach(stream)
            self._presence.disconnect(agent_id, epoch)

    async def _arrival(self, agent_id: str, context: Context) -> Connecting:
        """What hello says, and no more than that: the message would stay in memory as long as the stream."""
        first = await hello.first(context)
        if not isinstance(first, pb.AgentMessage) or not first.HasField("hello"):
            raise StreamMalformed("the first message was no hello: update the agent")
        return Connecting(agent_id, printable(first.hello.version[:64]), _short(first.hello.facts))

    async def _listen(self, stream: AgentStream, context: Context) -> None:
        while isinstance(message := await context.read(), pb.AgentMessage):
            stream.heard = math.inf  # while its reports wait to be taken, silence is not the agent's fault
            if message.HasField("report"):
                _bound(message.report)
                if forged := await self._router.accept(stream.agent_id, message.report):
                    _note_forged(stream, forged)
            elif not message.HasField("heartbeat"):
                log.warning("unknown message ignored", extra={"agent": stream.agent_id})
            stream.heard = time.monotonic()

    def _welcome(self, epoch: int) -> pb.Welcome:
        return pb.Welcome(epoch=epoch, heartbeat=duration(timedelta(seconds=self._heartbeat)))


def _bound(said: pb.Report) -> None:
    """Let through what an agent has to say, and nothing else: fields that we do not know would be passed on with it."""
    said.DiscardUnknownFields()
    if said.ByteSize() <= MAX_MESSAGE:
        return
    for report in said.reports:
        if len(report.message) > MAX_MESSAGE:
            report.message = report.message[:MAX_MESSAGE]
        if report.ByteSize() > MAX_REPORT:
            raise StreamMalformed(f"a report has more than {MAX_REPORT} bytes: send 64 KiB at a time")


def _short(facts: object) -> dict[str, str]:
    """At most 32 facts of at most 256 printable characters."""
    items = sorted(dict(facts).items())[:32]  # type: ignore[call-overload]  # a map of the protobuf runtime
    return {printable(name[:64]): printable(value[:256]) for name, value in items}


def _note_forged(stream: AgentStream, count: int) -> None:
    if not stream.forged:
        log.warning("reports on another agent's tasks dropped", extra={"agent": stream.agent_id, "count": count})
    stream.forged += count
