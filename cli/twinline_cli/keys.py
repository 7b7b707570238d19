"""`twinline keys`: the SSH key pairs that servers are launched with."""

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import grpc.aio
import typer

from twinline.keys.v1 import cloud_keys_pb2 as pb
from twinline.keys.v1 import cloud_keys_pb2_grpc as rpc
from twinline.launcher.v1 import servers_pb2, servers_pb2_grpc
from twinline_cli.commands import command, noun
from twinline_cli.connection import connected
from twinline_cli.errors import CliError, ExitCode, exit_code, say
from twinline_cli.formats import Format
from twinline_cli.naming import suggesting
from twinline_cli.options import Output
from twinline_cli.output import Column, show_deleted, show_list, show_one, when, yes_no
from twinline_cli.paging import every
from twinline_cli.secret_input import read_secret
from twinline_kit.errors import Error, InvalidArgument

app = noun("SSH key pairs that servers are launched with.")

Name = Annotated[str, typer.Argument(help="A key's name or id.")]

_MOST_NAMED = 10

COLUMNS: list[Column[pb.CloudKey]] = [
    Column("NAME", lambda key: key.name),
    Column("MATERIAL", lambda key: yes_no(key.has_material), is_state=True),
    Column("FINGERPRINT", lambda key: key.fingerprint),
    Column("ID", lambda key: key.id),
    Column("CREATED", lambda key: when(key.create_time)),
]
DETAILS: list[Column[pb.CloudKey]] = [
    *COLUMNS,
    Column("MATERIAL SINCE", lambda key: when(key.material_time)),
    Column("PUBLIC KEY", lambda key: key.public_key),
]


@command(app, "create")
async def create(name: Annotated[str, typer.Argument(help="What to call it.")], output: Output = Format.TABLE) -> None:
    """Make a key pair. Its private half stays in the keys service."""
    async with connected() as channel:
        request = pb.CreateCloudKeyRequest(name=name, request_id=str(uuid.uuid4()))
        show_one(await rpc.CloudKeyServiceStub(channel).CreateCloudKey(request), DETAILS, output)


@command(app, "list")
async def list_all(output: Output = Format.TABLE) -> None:
    """List the keys, and whether their private halves are here."""
    async with connected() as channel:
        keys = await every(rpc.CloudKeyServiceStub(channel).ListCloudKeys, pb.ListCloudKeysRequest(), "cloud_keys")
    show_list(keys, COLUMNS, output, empty="no keys yet; make one with `twinline keys create NAME`")


@command(app, "show")
async def show(key: Name, output: Output = Format.TABLE) -> None:
    """Show one key."""
    async with connected() as channel, suggesting(key, lambda: names(channel)):
        show_one(await rpc.CloudKeyServiceStub(channel).GetCloudKey(pb.GetCloudKeyRequest(key=key)), DETAILS, output)


@command(app, "import")
async def import_key(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The OpenSSH public key, such as id_ed25519.pub.")
    ] = None,
    fingerprint: Annotated[
        str, typer.Option(help="Instead of the public key: SHA256:…, or as the cloud shows it.")
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """Register a key that was made elsewhere, without its private half."""
    if (file is None) == (not fingerprint):
        raise CliError(f"say which key it is: `twinline keys import {name} FILE`, or --fingerprint TEXT instead")
    request = pb.ImportCloudKeyRequest(name=name, fingerprint=fingerprint, request_id=str(uuid.uuid4()))
    if file is not None:
        request.public_key = read_public_key(file)
    async with connected() as channel:
        show_one(await rpc.CloudKeyServiceStub(channel).ImportCloudKey(request), DETAILS, output)


@command(app, "upload-material")
async def upload_material(
    key: Name,
    file: Annotated[Path | None, typer.Argument(help="The private key; standard input when absent.")] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option("--passphrase-file", help="Holds the passphrase of an encrypted key file.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Bring the missing private half of a key. Refused when it does not belong to it."""
    request = pb.UploadCloudKeyMaterialRequest(key=key, private_key=read_secret(file, "the private key"))
    if passphrase_file is not None:
        request.passphrase = _passphrase(passphrase_file)
    async with connected() as channel, suggesting(key, lambda: names(channel)):
        try:
            uploaded = await rpc.CloudKeyServiceStub(channel).UploadCloudKeyMaterial(request)
        except InvalidArgument as error:
            if passphrase_file is None and "passphrase" in error.message:
                raise CliError(f"{error.message} with --passphrase-file FILE", exit_code(error)) from error
            raise
        show_one(uploaded, DETAILS, output)
        await _offer_resume(channel, uploaded)


@command(app, "delete")
async def delete(
    key: Name,
    force: Annotated[bool, typer.Option("--force", help="Delete it although machines have it.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Delete a key and its private half, for good. Refused when machines have it, unless forced."""
    async with connected() as channel, suggesting(key, lambda: names(channel)):
        stub = rpc.CloudKeyServiceStub(channel)
        found = await stub.GetCloudKey(pb.GetCloudKeyRequest(key=key))
        servers = await _servers(channel)
        users = [each.name for each in servers if each.has_machine and _is_of(found, each.current.cloud_key)]
        if users and not force:
            raise CliError(
                f"{found.name} is the key of {', '.join(users)}: v4 servers take no run without it; "
                "delete it all the same with --force",
                ExitCode.REFUSED,
            )
        await stub.DeleteCloudKey(pb.DeleteCloudKeyRequest(key=found.id))
    if wanting := [each.name for each in servers if _is_of(found, each.next.cloud_key)]:
        say(f"before the next launch, choose another key for {', '.join(wanting)}")
    show_deleted("key", key, output)


async def _offer_resume(channel: grpc.aio.Channel, key: pb.CloudKey) -> None:
    """Name the servers that stranded for want of the private half that is there now."""
    try:
        stranded = [each.name for each in await _servers(channel) if _wants_material(each, key)]
    except Error:
        return  # the material is stored: whether anybody waits for it is an extra
    if stranded:
        others = f" and {len(stranded) - _MOST_NAMED} more" if len(stranded) > _MOST_NAMED else ""
        named = stranded[:_MOST_NAMED]
        verb = "is" if len(stranded) == 1 else "are"
        say(
            f"{', '.join(named)}{others} {verb} stranded for want of it; "
            f"then `twinline servers resume {' '.join(named)}`"
        )


def _wants_material(server: servers_pb2.Server, key: pb.CloudKey) -> bool:
    return server.current.stranding.reason == "KEY_MATERIAL_MISSING" and _is_of(key, server.current.cloud_key)


def _is_of(key: pb.CloudKey, reference: str) -> bool:
    """Whether a server that refers to its key so has this one."""
    return reference in (key.id, key.name)


async def _servers(channel: grpc.aio.Channel) -> list[servers_pb2.Server]:
    stub = servers_pb2_grpc.ServerServiceStub(channel)
    return await every(stub.ListServers, servers_pb2.ListServersRequest(), "servers")


async def names(channel: grpc.aio.Channel) -> Iterable[str]:
    """The names of all keys."""
    keys = await every(rpc.CloudKeyServiceStub(channel).ListCloudKeys, pb.ListCloudKeysRequest(), "cloud_keys")
    return [key.name for key in keys]


def read_public_key(file: Path) -> str:
    """The one line of a public key file."""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise CliError(f"{file} is no OpenSSH public key; name the .pub file") from None
    if not text:
        raise CliError(f"{file} is empty; name the .pub file")
    return text


def _passphrase(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise CliError(f"{file} is no UTF-8 text; give the passphrase in UTF-8") from None
