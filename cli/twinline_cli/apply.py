"""`twinline apply`: bring everything to what a YAML file says."""

import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import grpc.aio
import typer

from twinline.common.v1 import common_pb2
from twinline.executor.v1 import scripts_pb2, scripts_pb2_grpc
from twinline.keys.v1 import cloud_keys_pb2, cloud_keys_pb2_grpc
from twinline.launcher.v1 import catalog_pb2 as catalog
from twinline.launcher.v1 import catalog_pb2_grpc, servers_pb2, servers_pb2_grpc
from twinline_cli.commands import command, noun
from twinline_cli.connection import connected
from twinline_cli.errors import CliError, exit_code, in_words
from twinline_cli.formats import Format
from twinline_cli.keys import read_public_key
from twinline_cli.manifests import Document, given_twice, load
from twinline_cli.options import Output
from twinline_cli.output import Column, emit, write_table
from twinline_cli.paging import every
from twinline_cli.scripts import placing, read_source
from twinline_kit.errors import Error, NotFound

app = noun()


@dataclass(frozen=True)
class Applied:
    """What became of one document: `created`, `changed` or `unchanged`."""

    kind: str
    name: str
    result: str


COLUMNS: list[Column[Applied]] = [
    Column("KIND", lambda each: each.kind),
    Column("NAME", lambda each: each.name),
    Column("RESULT", lambda each: each.result, is_state=True),
]


@command(app, "apply")
async def apply(
    files: Annotated[list[Path], typer.Option("--file", "-f", help="A YAML file; repeat it for several.")],
    output: Output = Format.TABLE,
) -> None:
    """Bring images, templates, deployments, servers and scripts to what a YAML file says. Twice changes nothing."""
    documents, done = load(*files), list[Applied]()
    try:
        async with connected() as channel:
            async for each in apply_all(channel, documents):
                done.append(each)
    finally:
        # What was applied is told even when the next one is refused.
        if done and output is Format.TABLE:
            write_table(COLUMNS, done)
            sys.stdout.flush()
        elif done:
            emit([vars(each) for each in done], output)


async def apply_all(channel: grpc.aio.Channel, documents: Iterable[Document]) -> AsyncIterator[Applied]:
    """Apply one document after the other. Errors name file and line of the one that is refused."""
    there = _There(channel)
    for document in documents:
        try:
            yield await _APPLY[document.kind](there, document)
        except Error as error:
            raise CliError(f"{document.where}: {in_words(error)}", exit_code(error)) from error


class _There:
    """What there is, by kind and name: listed when a kind comes first, and kept as it changes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._known: dict[str, dict[str, Any]] = {}
        self._scripts: dict[str, Document] = {}

    async def before(self, kind: str, listing: Callable[[Any], Awaitable[Any]], request: Any, field: str) -> None:
        """List what there is of a kind, unless that is known."""
        if kind not in self._known:
            self._known[kind] = {each.name: each for each in await every(listing, request, field)}

    def once(self, script: str, document: Document) -> None:
        """Refuse a second document about a script: the name may be in its header, so that `load` does not see it."""
        first = self._scripts.setdefault(script, document)
        if first is not document:
            raise given_twice(document, script, first)

    def compared(self, kind: str, after: Any, changing: Callable[[Any], Any]) -> Applied:
        """How `after` differs from what was there, in the parts that `changing` leaves."""
        known, self._known[kind][after.name] = self._known[kind].get(after.name), after
        if known is None:
            return Applied(kind, after.name, "created")
        return Applied(kind, after.name, "unchanged" if changing(known) == changing(after) else "changed")


async def _cloud_key(there: _There, document: Document) -> Applied:
    stub, fields = cloud_keys_pb2_grpc.CloudKeyServiceStub(there.channel), document.fields
    name = fields["name"]
    public_key = fields.get("public_key", "")
    if file := fields.get("public_key_file"):
        public_key = read_public_key(_beside(document, file))
    try:
        known = await stub.GetCloudKey(cloud_keys_pb2.GetCloudKeyRequest(key=name))
    except NotFound:
        request_id = str(uuid.uuid4())
        if public_key:
            await stub.ImportCloudKey(
                cloud_keys_pb2.ImportCloudKeyRequest(name=name, public_key=public_key, request_id=request_id)
            )
        else:
            await stub.CreateCloudKey(cloud_keys_pb2.CreateCloudKeyRequest(name=name, request_id=request_id))
        return Applied(document.kind, name, "created")
    if public_key and known.public_key.split()[:2] != public_key.split()[:2]:
        raise CliError(f"{document.where}: key {name} exists with another public half; choose another name")
    return Applied(document.kind, name, "unchanged")


async def _script(there: _There, document: Document) -> Applied:
    stub, fields = scripts_pb2_grpc.ScriptServiceStub(there.channel), document.fields
    if ("file" in fields) == ("source" in fields):
        raise CliError(f"{document.where}: this Script needs either file or source")
    # The name may be in the script's header alone, so that only the answer tells it: look at all of them before.
    await there.before(document.kind, stub.ListScripts, scripts_pb2.ListScriptsRequest(), "scripts")
    name, file = fields.get("name", ""), None
    if "file" in fields:
        file = _beside(document, fields["file"])
    source = read_source(file) if file else fields["source"].encode()
    linted = await stub.LintScript(scripts_pb2.LintScriptRequest(source=source))
    if called := name or linted.script.name:
        there.once(called, document)
    request = scripts_pb2.PushScriptRequest(name=name, source=source)
    if file:
        with placing(file, f" in the field name of {document.where}", is_named=bool(name)):
            after = await stub.PushScript(request)
    else:
        after = await stub.PushScript(request)
    return there.compared(document.kind, after, lambda script: script.revision)


async def _image(there: _There, document: Document) -> Applied:
    stub = catalog_pb2_grpc.CatalogServiceStub(there.channel)
    image = catalog.Image(**_without(document.fields, "generation"))
    if stated := document.fields.get("generation"):
        image.generation = common_pb2.GENERATION_V5 if stated == "v5" else common_pb2.GENERATION_V4
    await there.before(document.kind, stub.ListImages, catalog.ListImagesRequest(), "images")
    after = await stub.ApplyImage(catalog.ApplyImageRequest(image=image))
    return there.compared(document.kind, after, _timeless)


async def _security_group(there: _There, document: Document) -> Applied:
    stub = catalog_pb2_grpc.CatalogServiceStub(there.channel)
    group = catalog.SecurityGroup(**document.fields)
    request = catalog.ListSecurityGroupsRequest()
    await there.before(document.kind, stub.ListSecurityGroups, request, "security_groups")
    after = await stub.ApplySecurityGroup(catalog.ApplySecurityGroupRequest(security_group=group))
    return there.compared(document.kind, after, _timeless)


async def _template(there: _There, document: Document) -> Applied:
    stub, lists = catalog_pb2_grpc.CatalogServiceStub(there.channel), ("boot", "operational", "decommission")
    template = catalog.ServerTemplate(**_without(document.fields, *lists))
    for name in lists:
        for reference in document.fields.get(name, ()):
            getattr(template, name).add(script=reference.script, revision=reference.revision)
    await there.before(document.kind, stub.ListTemplates, catalog.ListTemplatesRequest(), "templates")
    after = await stub.ApplyTemplate(catalog.ApplyTemplateRequest(template=template))
    return there.compared(document.kind, after, _timeless)


async def _deployment(there: _There, document: Document) -> Applied:
    stub = catalog_pb2_grpc.CatalogServiceStub(there.channel)
    await there.before(document.kind, stub.ListDeployments, catalog.ListDeploymentsRequest(), "deployments")
    wanted = catalog.Deployment(**document.fields)
    after = await stub.ApplyDeployment(catalog.ApplyDeploymentRequest(deployment=wanted))
    return there.compared(document.kind, after, _timeless)


async def _server(there: _There, document: Document) -> Applied:
    stub, fields = servers_pb2_grpc.ServerServiceStub(there.channel), document.fields
    spec = servers_pb2.ServerSpec(**_without(fields, "name", "deployment"))
    await there.before(document.kind, stub.ListServers, servers_pb2.ListServersRequest(), "servers")
    request = servers_pb2.ApplyServerRequest(name=fields["name"], deployment=fields["deployment"], next=spec)
    after = await stub.ApplyServer(request)
    # What the machine does meanwhile is no change of the definition.
    return there.compared(document.kind, after, _definition)


_APPLY: Mapping[str, Callable[[_There, Document], Awaitable[Applied]]] = {
    "CloudKey": _cloud_key,
    "Script": _script,
    "Image": _image,
    "SecurityGroup": _security_group,
    "ServerTemplate": _template,
    "Deployment": _deployment,
    "Server": _server,
}
"""How each kind is applied; in which order, `manifests.KINDS` says."""


def _timeless(message: Any) -> Any:
    """A message without the time of its last change."""
    copy = type(message)()
    copy.CopyFrom(message)
    copy.ClearField("update_time")
    return copy


def _definition(server: servers_pb2.Server) -> servers_pb2.Server:
    return servers_pb2.Server(name=server.name, deployment=server.deployment, next=server.next)


def _without(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def _beside(document: Document, file: str) -> Path:
    """A path in a document is seen from the document's own folder."""
    return document.file.parent / Path(file).expanduser()
