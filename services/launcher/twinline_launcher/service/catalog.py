"""The catalogue's RPCs: check, act, answer."""

from asyncio import to_thread
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import grpc.aio

from twinline.executor.v1 import scripts_pb2, scripts_pb2_grpc
from twinline.launcher.v1 import catalog_pb2 as pb
from twinline.launcher.v1 import catalog_pb2_grpc as rpc
from twinline_kit import pages
from twinline_kit.clock import Clock
from twinline_kit.errors import InvalidArgument, NotFound, Violation
from twinline_kit.interceptors import Context
from twinline_launcher import convert, inputs, names
from twinline_launcher.errors import CloudUnknown, no_script, scripts_not_found
from twinline_launcher.models import Deployment, Generation, Image, SecurityGroup, Template
from twinline_launcher.providers import Clouds
from twinline_launcher.store.catalog import CatalogStore

Row = TypeVar("Row", Image, SecurityGroup, Template, Deployment)

_MOST_STEPS = 200


class CatalogService(rpc.CatalogServiceServicer):
    """What servers are made from."""

    def __init__(self, store: CatalogStore, clouds: Clouds, executor: grpc.aio.Channel, clock: Clock) -> None:
        self._store = store
        self._clouds = clouds
        self._scripts = scripts_pb2_grpc.ScriptServiceStub(executor)
        self._clock = clock

    async def ApplyImage(self, request: pb.ApplyImageRequest, context: Context) -> pb.Image:
        image = request.image
        if int(image.generation) not in list(Generation):
            raise InvalidArgument("generation must be v4, v5 or left out", field="image.generation")
        row = Image(
            name=names.name(image.name, "image.name"), cloud=self._cloud(image.cloud),
            cloud_image=names.name(image.cloud_image, "image.cloud_image"), generation=image.generation,
            update_time=self._clock(),
        )  # fmt: skip
        return convert.image(await to_thread(self._store.apply, row))

    async def ListImages(self, request: pb.ListImagesRequest, context: Context) -> pb.ListImagesResponse:
        page, following = await self._page(Image, request.page_size, request.page_token)
        return pb.ListImagesResponse(images=map(convert.image, page), next_page_token=following)

    async def ApplySecurityGroup(self, request: pb.ApplySecurityGroupRequest, context: Context) -> pb.SecurityGroup:
        group = request.security_group
        if not all(0 < port < 65536 for port in group.open_ports):
            raise InvalidArgument("open_ports must be from 1 to 65535", field="security_group.open_ports")
        row = SecurityGroup(
            name=names.name(group.name, "security_group.name"), cloud=self._cloud(group.cloud),
            open_ports=sorted(set(group.open_ports)), update_time=self._clock(),
        )  # fmt: skip
        stored = await to_thread(self._store.apply, row)
        # Said even when nothing changed: an earlier call may have failed between the two.
        await self._clouds[stored.cloud].apply_group(stored.name, stored.open_ports)
        return convert.security_group(stored)

    async def ListSecurityGroups(
        self, request: pb.ListSecurityGroupsRequest, context: Context
    ) -> pb.ListSecurityGroupsResponse:
        page, following = await self._page(SecurityGroup, request.page_size, request.page_token)
        return pb.ListSecurityGroupsResponse(
            security_groups=map(convert.security_group, page), next_page_token=following
        )

    async def ApplyTemplate(self, request: pb.ApplyTemplateRequest, context: Context) -> pb.ServerTemplate:
        template = request.template
        lists = (template.boot, template.operational, template.decommission)
        if sum(map(len, lists)) > _MOST_STEPS:
            raise InvalidArgument(f"a template has at most {_MOST_STEPS} scripts", field="template")
        boot, operational, decommission = map(_references, lists)
        row = Template(
            name=names.name(template.name, "template.name"), description=template.description,
            boot=boot, operational=operational, decommission=decommission,
            inputs=inputs.check(template.inputs, "template.inputs"), update_time=self._clock(),
        )  # fmt: skip
        await self._require_scripts([*boot, *operational, *decommission])
        return convert.template(await to_thread(self._store.apply, row))

    async def ListTemplates(self, request: pb.ListTemplatesRequest, context: Context) -> pb.ListTemplatesResponse:
        page, following = await self._page(Template, request.page_size, request.page_token)
        return pb.ListTemplatesResponse(templates=map(convert.template, page), next_page_token=following)

    async def ApplyDeployment(self, request: pb.ApplyDeploymentRequest, context: Context) -> pb.Deployment:
        deployment = request.deployment
        row = Deployment(
            name=names.name(deployment.name, "deployment.name"), description=deployment.description,
            inputs=inputs.check(deployment.inputs, "deployment.inputs"), update_time=self._clock(),
        )  # fmt: skip
        return convert.deployment(await to_thread(self._store.apply, row))

    async def ListDeployments(self, request: pb.ListDeploymentsRequest, context: Context) -> pb.ListDeploymentsResponse:
        page, following = await self._page(Deployment, request.page_size, request.page_token)
        return pb.ListDeploymentsResponse(deployments=map(convert.deployment, page), next_page_token=following)

    async def _page(self, table: type[Row], size: int, token: str) -> tuple[Sequence[Row], str]:
        limit, after = pages.page_size(size), pages.after(token, filter=table.__name__)
        rows = await to_thread(lambda: self._store.page(table, after=after, limit=limit + 1))
        return pages.slice(rows, limit, lambda row: row.name, filter=table.__name__)

    async def _require_scripts(self, references: Iterable[dict[str, Any]]) -> None:
        missing = []
        for script, revision in dict.fromkeys((each["script"], each["revision"]) for each in references):
            try:
                await self._scripts.GetScript(scripts_pb2.GetScriptRequest(name=script, revision=revision))
            except NotFound:
                missing.append(Violation("SCRIPT_NOT_FOUND", script, no_script(script, revision)))
        if missing:
            raise scripts_not_found(missing)

    def _cloud(self, name: str) -> str:
        if name in self._clouds:
            return name
        known = ", ".join(self._clouds) or "none"
        raise CloudUnknown(f"no cloud {name!r} here: known is {known}", field="cloud", cloud=name)


def _references(given: Iterable[pb.ScriptReference]) -> list[dict[str, Any]]:
    references = list(given)
    if any(not each.script or each.revision < 0 for each in references):
        raise InvalidArgument("a script of a list needs a name, and no negative revision", field="template")
    return [{"script": each.script, "revision": each.revision} for each in references]
