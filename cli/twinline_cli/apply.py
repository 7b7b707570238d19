"""`twinline apply`: bring everything to what a YAML file says."""

import sys
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
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
from twinline_cli.manifests import Document, load
from twinline_cli.options import Output
from twinline_cli.output import Column, emit, write_table
from twinline_cli.paging import every
from twinline_cli.scripts import read_source
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

Apply = Callable[[grpc.aio.Channel, Document], Awaitable[Applied]]


@command(app, "apply")
async def apply(
    files: Annotated[list[Path], typer.Option("--file", "-f", help="A YAML file; repeat it for several.")],
    output: Output = Format.TABLE,
) -> None:
    """Bring images, templates, deployments, servers and scripts to what a YAML file says. Twice changes nothing."""
    documents = [document for file in files for document in load(file)]
    documents.sort(key=lambda document: list(APPLY).index(document.kind))
    async with connected() as channel:
        done = [await apply_document(channel, document) for document in documents]
    if output is Format.TABLE:
        write_table(COLUMNS, done)
        sys.stdout.flush()
    else:
        emit([vars(each) for each in done], output)


async def apply_document(channel: grpc.aio.Channel, document: Document) -> Applied:
    """Apply one document. Errors name its file and line."""
    try:
        return await APPLY[document.kind](channel, document)
    except Error as error:
        raise CliError(f"{document.where}: {in_words(error)}", exit_code(error)) from error


async def _cloud_key(channel: grpc.aio.Channel, document: Document) -> Applied:
    stub, fields = cloud_keys_pb2_grpc.CloudKeyServiceStub(channel), document.fields
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


async def _script(channel: grpc.aio.Channel, document: Document) -> Applied:
    stub, fields = scripts_pb2_grpc.ScriptServiceStub(channel), document.fields
    if ("file" in fields) == ("source" in fields):
        raise CliError(f"{document.where}: this Script needs either file or source")
    source = read_source(_beside(document, fields["file"])) if "file" in fields else fields["source"].encode()
    request = scripts_pb2.PushScriptRequest(name=fields.get("name", ""), source=source)
    # The name may be in the script's header alone, so that only the answer tells it: look at all of them before.
    found = await every(stub.ListScripts, scripts_pb2.ListScriptsRequest(), "scripts")
    before = {script.name: script.revision for script in found}
    after = await stub.PushScript(request)
    result = "created" if after.name not in before else "changed"
    return Applied(document.kind, after.name, "unchanged" if before.get(after.name) == after.revision else result)


async def _image(channel: grpc.aio.Channel, document: Document) -> Applied:
    stub = catalog_pb2_grpc.CatalogServiceStub(channel)
    image = catalog.Image(**_without(document.fields, "generation"))
    if stated := document.fields.get("generation"):
        image.generation = common_pb2.GENERATION_V5 if stated == "v5" else common_pb2.GENERATION_V4
    before = await every(stub.ListImages, catalog.ListImagesRequest(), "images")
    after = await stub.ApplyImage(catalog.ApplyImageRequest(image=image))
    return _compared(document, before, after)


async def _security_group(channel: grpc.aio.Channel, document: Document) -> Applied:
    stub = catalog_pb2_grpc.CatalogServiceStub(channel)
    group = catalog.SecurityGroup(**document.fields)
    before = await every(stub.ListSecurityGroups, catalog.ListSecurityGroupsRequest(), "security_groups")
    after = await stub.ApplySecurityGroup(catalog.ApplySecurityGroupRequest(security_group=group))
    return _compared(document, before, after)


async def _template(channel: grpc.aio.Channel, document: Document) -> Applied:
    stub, lists = catalog_pb2_grpc.CatalogServiceStub(channel), ("boot", "operational", "decommission")
    template = catalog.ServerTemplate(**_without(document.fields, *lists))
    for name in lists:
        for reference in document.fields.get(name, ()):
            getattr(template, name).add(script=reference.script, revision=reference.revision)
    before = await every(stub.ListTemplates, catalog.ListTemplatesRequest(), "templates")
    after = await stub.ApplyTemplate(catalog.ApplyTemplateRequest(template=template))
    return _compared(document, before, after)


async def _deployment(channel: grpc.aio.Channel, document: Document) -> Applied:
    stub = catalog_pb2_grpc.CatalogServiceStub(channel)
    before = await every(stub.ListDeployments, catalog.ListDeploymentsRequest(), "deployments")
    wanted = catalog.Deployment(**document.fields)
    after = await stub.ApplyDeployment(catalog.ApplyDeploymentRequest(deployment=wanted))
    return _compared(document, before, after)


async def _server(channel: grpc.aio.Channel, document: Document) -> Applied:
    stub, fields = servers_pb2_grpc.ServerServiceStub(channel), document.fields
    spec = servers_pb2.ServerSpec(**_without(fields, "name", "deployment"))
    before = await every(stub.ListServers, servers_pb2.ListServersRequest(), "servers")
    request = servers_pb2.ApplyServerRequest(name=fields["name"], deployment=fields["deployment"], next=spec)
    after = await stub.ApplyServer(request)
    # What the machine does meanwhile is no change of the definition.
    return _compared(document, [_definition(each) for each in before], _definition(after))


APPLY: Mapping[str, Apply] = {
    "CloudKey": _cloud_key,
    "Script": _script,
    "Image": _image,
    "SecurityGroup": _security_group,
    "ServerTemplate": _template,
    "Deployment": _deployment,
    "Server": _server,
}
"""How each kind is applied, in the order in which they are."""


def _compared(document: Document, before: Sequence[Any], after: Any) -> Applied:
    known = next((each for each in before if each.name == after.name), None)
    if known is None:
        return Applied(document.kind, after.name, "created")
    for message in (known, after):
        message.ClearField("update_time")
    return Applied(document.kind, after.name, "unchanged" if known == after else "changed")


def _definition(server: servers_pb2.Server) -> servers_pb2.Server:
    return servers_pb2.Server(name=server.name, deployment=server.deployment, next=server.next)


def _without(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def _beside(document: Document, file: str) -> Path:
    """A path in a document is seen from the document's own folder."""
    return document.file.parent / Path(file).expanduser()
