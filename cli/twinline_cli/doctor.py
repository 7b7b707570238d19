"""`twinline doctor`: checks everything a command needs, and explains what is not there."""

import asyncio
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from twinline.agent_gateway.v1 import fleet_pb2
from twinline.executor.v1 import runs_pb2, scripts_pb2, targets_pb2
from twinline.keys.v1 import cloud_keys_pb2, credentials_pb2, people_pb2, people_pb2_grpc
from twinline.launcher.v1 import catalog_pb2, servers_pb2
from twinline_cli import home
from twinline_cli.commands import command, noun
from twinline_cli.connection import not_all
from twinline_cli.errors import ExitCode
from twinline_cli.formats import Format
from twinline_cli.options import Output
from twinline_cli.output import emit, word
from twinline_cli.terminal import GREEN, RED, YELLOW, colour, one_line
from twinline_kit.client import api_channel
from twinline_kit.errors import Error, NotFound, Unimplemented

app = noun()

SERVICES = {
    "keys": (cloud_keys_pb2, credentials_pb2, people_pb2),
    "agent gateway": (fleet_pb2,),
    "executor": (runs_pb2, scripts_pb2, targets_pb2),
    "launcher": (catalog_pb2, servers_pb2),
}
"""The proto files that each service answers for on the API port."""

_PATIENCE = 5.0
_SOON = timedelta(days=7)


@dataclass(frozen=True)
class Check:
    """One thing looked at. `ok` is None for a warning: something that not every use needs."""

    name: str
    ok: bool | None
    message: str


@command(app, "doctor")
async def doctor(output: Output = Format.TABLE) -> ExitCode:
    """Check the home, the connection, the certificate, the token and every service. Exits with 0 when all answer."""
    checks = [*_versions()]
    try:
        client = home.client()
        checks.append(Check("home", True, str(home.folder())))
    except OSError as error:
        checks.append(Check("home", False, _bad_home(error)))
    except home.ClientFileSpoilt as error:
        checks.append(Check("home", False, str(error)))
    else:
        checks += await _checks_of(client)
    if output is not Format.TABLE:
        emit([asdict(check) for check in checks], output)
    else:
        _print(checks)
    failed = [check for check in checks if check.ok is False]
    if not failed:
        return ExitCode.SUCCEEDED
    return ExitCode.REFUSED if failed[0].name == "token" else ExitCode.UNREACHABLE


async def _checks_of(client: home.Client) -> list[Check]:
    certificate = await asyncio.to_thread(_certificate, client)
    if certificate.ok is False:
        return [certificate]
    async with api_channel(client.address, client.ca, client.token) as channel:
        services = [await _service(channel, client.address, name) for name in SERVICES]
        return [certificate, await _token(channel, client.address), *services]


def _versions() -> Iterator[Check]:
    names = ("twinline-cli", "twinline-suite", "twinline-protos")
    found = {}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    agree = len(set(found.values())) == 1
    yield Check(
        "version", True if agree else None, text if agree else f"{text}; install the same version of all of them"
    )


def _bad_home(error: OSError) -> str:
    folder = home.folder()
    if isinstance(error, PermissionError):
        return f"cannot read {error.filename}; use the account that runs the suite"
    if not folder.exists():
        return f"{folder} does not exist; start the suite with `twinline up`, or name its home in {home.VARIABLE}"
    return f"{error.filename} is not there: no suite has run on {folder}; start one with `twinline up`"


def _certificate(client: home.Client) -> Check:
    """Connect as any program would, trusting the home's CA only, and read until when the certificate is good."""
    host, _, port = client.address.rpartition(":")
    try:
        context = ssl.create_default_context(cadata=client.ca.decode("ascii"))
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection((host, int(port)), _PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            end = datetime.fromtimestamp(
                ssl.cert_time_to_seconds(str((connection.getpeercert() or {})["notAfter"])), UTC
            )
    except ssl.SSLCertVerificationError as error:
        text = f"what listens on {client.address} is not the suite of this home: {error.verify_message}; start it again"
        return Check("certificate", False, text)
    except (OSError, ValueError, KeyError) as error:
        text = f"nothing answers on {client.address} ({error}); start the suite of {home.folder()} with `twinline up`"
        return Check("connection", False, text)
    if end - datetime.now(UTC) < _SOON:
        return Check(
            "certificate", None, f"good until {end:%Y-%m-%d %H:%MZ} only; start `twinline up` again to renew it"
        )
    return Check("certificate", True, f"{client.address} is trusted until {end:%Y-%m-%d}")


async def _token(channel: grpc.aio.Channel, address: str) -> Check:
    try:
        person = await people_pb2_grpc.PeopleServiceStub(channel).WhoAmI(people_pb2.WhoAmIRequest(), timeout=_PATIENCE)
    except Unimplemented as error:
        return Check("token", None, f"cannot be tried: {not_all(address, error)}")
    except Error as error:
        return Check("token", False, f"{error.message}; the token tried is {home.client_files().token}")
    role = word(people_pb2.Role, person.role)
    return Check("token", True, f"you are {person.name} ({role})")


async def _service(channel: grpc.aio.Channel, address: str, name: str) -> Check:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    for file in SERVICES[name]:
        for service in file.DESCRIPTOR.services_by_name.values():
            request = health_pb2.HealthCheckRequest(service=service.full_name)
            try:
                answer = await stub.Check(request, timeout=_PATIENCE)
            except NotFound:
                return Check(name, False, f"{address} is not all of Twinline: it has no {service.full_name}")
            except Error as error:
                return Check(name, False, f"{service.full_name} does not answer: {error.message}; look at {_log()}")
            if answer.status != health_pb2.HealthCheckResponse.SERVING:
                return Check(name, False, f"{service.full_name} is not serving; look at {_log()}")
    return Check(name, True, "answers")


def _log() -> Path:
    return home.folder() / "logs"


def _print(checks: list[Check]) -> None:
    room = max(len(check.name) for check in checks)
    for check in checks:
        word, code = {True: ("ok  ", GREEN), False: ("FAIL", RED), None: ("warn", YELLOW)}[check.ok]
        sys.stdout.write(f"{colour(word, code)}  {check.name:<{room}}  {one_line(check.message)}\n")
