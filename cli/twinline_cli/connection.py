"""A channel to the running suite, for one command."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio

from twinline_cli import home
from twinline_cli.commands import name_of_command
from twinline_cli.errors import CliError, ExitCode, exit_code
from twinline_kit import telemetry
from twinline_kit.client import api_channel
from twinline_kit.errors import Unauthenticated, Unavailable, Unimplemented

_NEVER_CONNECTED = re.compile(r"failed to connect|resolving|resolution")
"""In what the transport says when nothing listens at an address, or nothing has the name."""


@asynccontextmanager
async def connected() -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the suite of TWINLINE_HOME. When nothing answers there, the error says what to do."""
    try:
        client = home.client()
    except OSError as error:
        raise CliError(_no_suite(error), ExitCode.UNREACHABLE) from error
    except home.ClientFileSpoilt as error:
        raise CliError(str(error), ExitCode.UNREACHABLE) from error
    telemetry.start("cli", is_command=True)
    try:
        with telemetry.tracer().start_as_current_span(name_of_command.get()):
            async with api_channel(client.address, client.ca, client.token) as channel:
                yield channel
    except Unavailable as error:
        if error.is_ours or not _NEVER_CONNECTED.search(error.message):
            raise
        raise CliError(_no_answer(client.address, error.message), ExitCode.UNREACHABLE) from error
    except Unimplemented as error:
        if error.is_ours:
            raise
        raise CliError(not_all(client.address, error), exit_code(error)) from error
    except Unauthenticated as error:
        text = f"{error.message}; the token tried is the one in {home.client_files().token}"
        raise CliError(text, exit_code(error)) from error
    finally:
        telemetry.stop()


def not_all(address: str, error: Unimplemented) -> str:
    """That what listens on `address` knows some of our methods at most: one service, or an older suite."""
    method = error.metadata.get("method", "").strip("/")
    return f"{address} is not all of Twinline, or an older one: it has no {method}; name the address of a whole suite"


def _no_suite(error: OSError) -> str:
    folder = home.folder()
    if isinstance(error, PermissionError):
        return f"cannot read {error.filename}: permission denied; use the account that runs the suite"
    return f"no suite has run on {folder}; start one with `twinline up`, or name its home in {home.VARIABLE}"


def _no_answer(address: str, why: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in why:
        return (
            f"what listens on {address} is not the suite of {home.folder()}: its certificate is of another authority; "
            "run `twinline doctor`"
        )
    return f"nothing answers on {address}; start the suite of {home.folder()} with `twinline up`"
