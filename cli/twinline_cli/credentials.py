"""`twinline credentials`: secret values that scripts get as `cred:NAME` inputs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import grpc.aio
import typer

from twinline.keys.v1 import credentials_pb2 as pb
from twinline.keys.v1 import credentials_pb2_grpc as rpc
from twinline_cli.commands import command, noun
from twinline_cli.connection import connected
from twinline_cli.formats import Format
from twinline_cli.naming import suggesting
from twinline_cli.options import Output
from twinline_cli.output import Column, show_deleted, show_list, show_one, when
from twinline_cli.paging import every
from twinline_cli.secret_input import read_secret

app = noun("Secret values that scripts get as cred:NAME inputs.")

COLUMNS: list[Column[pb.Credential]] = [
    Column("NAME", lambda credential: credential.name),
    Column("CHANGED", lambda credential: when(credential.update_time)),
]


@command(app, "set")
async def set_value(
    name: Annotated[str, typer.Argument(help="What scripts' inputs call it.")],
    file: Annotated[Path | None, typer.Option("--file", help="Holds the value; standard input when absent.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Store a value. One line end at its end is not part of it."""
    value = read_secret(file, "the value", is_line=True)
    request = pb.SetCredentialRequest(name=name, value=value.removesuffix(b"\n").removesuffix(b"\r"))
    async with connected() as channel:
        show_one(await rpc.CredentialServiceStub(channel).SetCredential(request), COLUMNS, output)


@command(app, "list")
async def list_all(output: Output = Format.TABLE) -> None:
    """List the names. Values are never shown."""
    async with connected() as channel:
        found = await _all(channel)
    show_list(found, COLUMNS, output, empty="no credentials yet; store one with `twinline credentials set NAME`")


@command(app, "delete")
async def delete(name: Annotated[str, typer.Argument(help="Its name.")], output: Output = Format.TABLE) -> None:
    """Delete a credential, for good."""
    async with connected() as channel, suggesting(name, lambda: _names(channel)):
        await rpc.CredentialServiceStub(channel).DeleteCredential(pb.DeleteCredentialRequest(name=name))
    show_deleted("credential", name, output)


async def _all(channel: grpc.aio.Channel) -> list[pb.Credential]:
    stub = rpc.CredentialServiceStub(channel)
    return await every(stub.ListCredentials, pb.ListCredentialsRequest(), "credentials")


async def _names(channel: grpc.aio.Channel) -> Iterable[str]:
    return [credential.name for credential in await _all(channel)]
