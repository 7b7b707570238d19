"""Waiting until servers have come to rest."""

import asyncio
import sys
from collections.abc import AsyncIterable, Collection
from functools import partial

import grpc.aio

from twinline.launcher.v1 import servers_pb2 as pb
from twinline.launcher.v1 import servers_pb2_grpc as rpc
from twinline_cli.errors import CliError, ExitCode, say
from twinline_cli.progress import Progress
from twinline_cli.reconnecting import again_and_again
from twinline_cli.server_view import state, stranding
from twinline_kit.errors import Unavailable

_MOST_NAMED = 10


async def until_at_rest(
    channel: grpc.aio.Channel, servers: Collection[str], wanted: pb.ServerState.ValueType, timeout: float
) -> ExitCode:
    """Wait until all `servers` (names) rest. FAILED when one rests elsewhere than in `wanted`; why is said at once.

    A CliError when it takes longer than `timeout` seconds, or the suite stays away: the servers go on. They do after
    Ctrl-C too, and it is said.
    """
    latest: dict[str, pb.Server] = {}
    try:
        async with asyncio.timeout(timeout):
            await _follow(channel, servers, wanted, latest)
    except asyncio.CancelledError:
        say(going_on(servers))
        raise
    except Unavailable as error:
        raise suite_away(servers) from error
    except TimeoutError:
        moving = ", ".join(f"{each.name} is {state(each.state)}" for each in latest.values() if each.moving)
        raise CliError(
            f"gave up waiting after {timeout:g} s ({moving or 'no news'}); {going_on(servers)}",
            ExitCode.UNKNOWN,
        ) from None
    return ExitCode.SUCCEEDED if all(each.state == wanted for each in latest.values()) else ExitCode.FAILED


def going_on(servers: Collection[str]) -> str:
    """That servers (names; none: all) go on without whoever waited for them, and how to see it."""
    named = list(servers) if len(servers) <= _MOST_NAMED else []
    command = " ".join(("twinline servers watch", *named))
    if len(named) == 1:
        return f"{named[0]} goes on; see it with `{command}`"
    return f"{', '.join(named) or 'the servers'} go on; see them with `{command}`"


def suite_away(servers: Collection[str]) -> CliError:
    """What is said when the suite stays away while `servers` (names; none: all) are followed."""
    return CliError(f"the suite is away; {going_on(servers)}", ExitCode.UNKNOWN)


def changes(channel: grpc.aio.Channel, servers: Collection[str]) -> AsyncIterable[pb.WatchServersResponse]:
    """The servers (names or ids; none: all) as they are, then every change."""
    return rpc.ServerServiceStub(channel).WatchServers(pb.WatchServersRequest(servers=servers))


async def _follow(
    channel: grpc.aio.Channel,
    servers: Collection[str],
    wanted: pb.ServerState.ValueType,
    latest: dict[str, pb.Server],
) -> None:
    told: dict[str, pb.ServerState.ValueType] = {}
    with Progress(sys.stderr) as progress:
        async for change in again_and_again(partial(changes, channel, servers)):
            server = change.server
            latest[server.name] = server
            if not server.moving and server.state not in (wanted, told.get(server.name)):
                told[server.name] = server.state
                progress.clear()
                say(f"{server.name} came to {state(server.state)}; {stranding(server) or server.current.cause}")
            progress.show("  ".join(f"{each.name} {state(each.state)}" for each in latest.values()))
            if len(latest) == len(set(servers)) and not any(each.moving for each in latest.values()):
                return
