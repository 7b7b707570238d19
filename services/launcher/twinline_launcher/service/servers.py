"""The servers' RPCs: check, act, answer. What takes time is the reconciler's."""

import logging
from asyncio import to_thread
from collections.abc import AsyncIterator, Collection, Iterable

from twinline.launcher.v1 import servers_pb2 as pb
from twinline.launcher.v1 import servers_pb2_grpc as rpc
from twinline_kit import ids, pages
from twinline_kit.auth import caller
from twinline_kit.clock import Clock
from twinline_kit.errors import Conflict, InvalidArgument
from twinline_kit.interceptors import Context
from twinline_launcher import convert, inputs, launching, names, states, watch
from twinline_launcher.changes import Changes
from twinline_launcher.models import Deployment, Image, Instance, SecurityGroup, Server, Template, Whole
from twinline_launcher.preflight import Preflight
from twinline_launcher.states import ENDED, Event, State
from twinline_launcher.store.catalog import CatalogStore
from twinline_launcher.store.instances import InstanceStore
from twinline_launcher.store.servers import ServerStore

log = logging.getLogger(__name__)

_TRIES = 5
"""How often a person's wish is put to a machine that the reconciler writes at the same time."""

Wish = pb.ResumeServerRequest | pb.ForceOperationalServerRequest | pb.TerminateServerRequest


class ServerService(rpc.ServerServiceServicer):
    """Servers, and the machine that each may have now."""

    def __init__(
        self,
        servers: ServerStore,
        instances: InstanceStore,
        catalog: CatalogStore,
        preflight: Preflight,
        *,
        changes: Changes,
        clock: Clock,
    ) -> None:
        self._servers = servers
        self._instances = instances
        self._catalog = catalog
        self._preflight = preflight
        self._changes = changes
        self._clock = clock

    async def ApplyServer(self, request: pb.ApplyServerRequest, context: Context) -> pb.Server:
        spec, at = request.next, self._clock()
        wanted = Server(
            id=ids.new_id("server"), name=names.server(request.name),
            deployment=names.optional(request.deployment, "deployment"),
            template=names.optional(spec.template, "next.template"), image=names.optional(spec.image, "next.image"),
            instance_type=names.optional(spec.instance_type, "next.instance_type"),
            cloud_key=names.key_reference(spec.cloud_key, "next.cloud_key"),
            security_groups=list(dict.fromkeys(spec.security_groups)),
            inputs=inputs.check(spec.inputs, "next.inputs"), tags=names.tags(spec.tags),
            create_time=at, update_time=at,
        )  # fmt: skip
        await to_thread(self._require, wanted)
        stored = await to_thread(self._servers.apply, wanted)
        self._changes.tell()
        return await self._answer(stored.id)

    async def GetServer(self, request: pb.GetServerRequest, context: Context) -> pb.Server:
        return await self._answer(names.server_reference(request.server))

    async def ListServers(self, request: pb.ListServersRequest, context: Context) -> pb.ListServersResponse:
        size = pages.page_size(request.page_size)
        deployment = names.optional(request.deployment, "deployment")
        if deployment:
            await to_thread(self._catalog.get, Deployment, deployment)
        after = pages.after(request.page_token, filter=deployment)
        rows = await to_thread(lambda: self._servers.page(deployment=deployment, after=after, limit=size + 1))
        page, following = pages.slice(rows, size, lambda whole: whole.server.name, filter=deployment)
        return pb.ListServersResponse(servers=await self._messages(page), next_page_token=following)

    async def PreflightServer(self, request: pb.PreflightServerRequest, context: Context) -> pb.PreflightServerResponse:
        whole = await to_thread(self._servers.get, names.server_reference(request.server))
        plan = await self._preflight.look(whole.server, inputs.check(request.inputs, "inputs"))
        await self._preflight.look_at_machine(plan, whole.instance)
        return pb.PreflightServerResponse(violations=map(convert.problem, plan.problems))

    async def LaunchServer(self, request: pb.LaunchServerRequest, context: Context) -> pb.Server:
        request_id, given = ids.request_id(request.request_id), inputs.check(request.inputs, "inputs")
        whole = await to_thread(self._servers.get, names.server_reference(request.server))
        if await self._is_served(request_id, whole.server, Event.LAUNCH):
            return await self._answer(whole.server.id)
        states.after(_state(whole), Event.LAUNCH, server=whole.server.name)
        plan = await self._preflight.look(whole.server, given)
        plan.refuse(force=request.force)
        at, cause = self._clock(), launching.cause(plan, caller().name, force=request.force)
        machine = launching.instance(plan, at=at)
        try:
            await to_thread(
                lambda: self._instances.launch(whole.server, machine, at=at, cause=cause, request_id=request_id)
            )
        except Conflict:
            if not await self._is_served(request_id, whole.server, Event.LAUNCH):
                raise
        else:
            self._tell(machine, Event.LAUNCH, cause)
        return await self._answer(whole.server.id)

    async def ResumeServer(self, request: pb.ResumeServerRequest, context: Context) -> pb.Server:
        return await self._move(request, Event.RESUME, f"resumed by {caller().name}")

    async def ForceOperationalServer(self, request: pb.ForceOperationalServerRequest, context: Context) -> pb.Server:
        cause = f"declared operational by {caller().name}, without running any script"
        return await self._move(request, Event.FORCE_OPERATIONAL, cause)

    async def TerminateServer(self, request: pb.TerminateServerRequest, context: Context) -> pb.Server:
        return await self._move(request, Event.TERMINATE, f"terminated by {caller().name}", unless=ENDED)

    async def ListTransitions(self, request: pb.ListTransitionsRequest, context: Context) -> pb.ListTransitionsResponse:
        size = pages.page_size(request.page_size)
        whole = await to_thread(self._servers.get, names.server_reference(request.server))
        server_id = whole.server.id
        after = _number(pages.after(request.page_token, filter=server_id))
        rows = await to_thread(lambda: self._servers.transitions(server_id, after=after, limit=size + 1))
        page, following = pages.slice(rows, size, lambda row: str(row.number), filter=server_id)
        return pb.ListTransitionsResponse(transitions=map(convert.transition, page), next_page_token=following)

    async def WatchServers(
        self, request: pb.WatchServersRequest, context: Context
    ) -> AsyncIterator[pb.WatchServersResponse]:
        only: list[str] | None = None
        if request.servers:
            found = [await to_thread(self._servers.get, names.server_reference(each)) for each in request.servers]
            only = list(dict.fromkeys(whole.server.id for whole in found))
        async for change in watch.follow(self._servers, self._changes, only):
            message = (await self._messages([change.whole]))[0]
            yield pb.WatchServersResponse(server=message, transitions=map(convert.transition, change.transitions))

    async def _move(
        self, request: Wish, event: Event, cause: str, *, unless: Collection[State] = frozenset()
    ) -> pb.Server:
        """What a person asks for holds in the state that the machine has by then, whoever wrote it meanwhile.

        In the states of `unless` it needs nothing.
        """
        server, request_id = names.server_reference(request.server), ids.request_id(request.request_id)
        for _ in range(_TRIES):
            whole = await to_thread(self._servers.get, server)
            if not await self._is_served(request_id, whole.server, event) and _state(whole) not in unless:
                states.after(_state(whole), event, server=whole.server.name)
                machine = whole.instance
                if machine is not None and not await self._applied(machine, event, cause, request_id):
                    continue
            return await self._answer(whole.server.id)
        raise Conflict(f"server {server} keeps changing: try again", server=server)

    async def _is_served(self, request_id: str | None, server: Server, event: Event) -> bool:
        """Whether an earlier call with this request did what this one asks for. InvalidArgument: it did another."""
        first = await to_thread(self._instances.made_by, request_id)
        if first is None:
            return False
        if (first.server_id, first.event) == (server.id, event):
            return True
        raise InvalidArgument("request_id was used before, for something else: make a new one", field="request_id")

    async def _applied(self, machine: Instance, event: Event, cause: str, request_id: str | None) -> bool:
        at = self._clock()
        try:
            await to_thread(lambda: self._instances.apply(machine.id, event, at=at, cause=cause, request_id=request_id))
        except Conflict:
            return False
        self._tell(machine, event, cause)
        return True

    def _tell(self, machine: Instance, event: Event, cause: str) -> None:
        self._changes.tell()
        fields = {"server": machine.server_name, "instance": machine.id, "event": event.value, "cause": cause}
        log.info("server moved", extra=fields)

    async def _answer(self, server: str) -> pb.Server:
        return (await self._messages([await to_thread(self._servers.get, server)]))[0]

    async def _messages(self, wholes: Iterable[Whole]) -> list[pb.Server]:
        wholes, at = list(wholes), self._clock()
        images = await to_thread(self._catalog.find, Image, sorted({whole.server.image for whole in wholes}))
        return [convert.server(whole, images.get(whole.server.image), at=at) for whole in wholes]

    def _require(self, server: Server) -> None:
        """Everything that the definition names, except what preflight looks at."""
        if server.image:
            self._catalog.get(Image, server.image)
        if server.template:
            self._catalog.get(Template, server.template)
        if server.deployment:
            self._catalog.get(Deployment, server.deployment)
        for group in server.security_groups:
            self._catalog.get(SecurityGroup, group)


def _state(whole: Whole) -> State:
    return State(whole.instance.state) if whole.instance else State.INACTIVE


def _number(position: str) -> int:
    return int(position) if position.isdigit() else 0
