"""Waiting until servers have come to rest."""

import asyncio
import sys
from collections.abc import Collection

import grpc.aio

from twinline.launcher.v1 import servers_pb2 as pb
from twinline.launcher.v1 import servers_pb2_grpc as rpc
from twinline_cli.errors import CliError, ExitCode, say
from twinline_cli.progress import Progress
from twinline_cli.server_view import state, stranding


async def until_at_rest(
    channel: grpc.aio.Channel, servers: Collection[str], wanted: pb.ServerState.ValueType, timeout: float
) -> ExitCode:
    """Wait until all `servers` (names) rest. FAILED when one rests elsewhere than in `wanted`; why is said at once.

    A CliError when it takes longer than `timeout` seconds: the servers go on. They do after Ctrl-C too, and it is said.
    """
    latest: dict[str, pb.Server] = {}
    try:
        async with asyncio.timeout(timeout):
            await _follow(channel, servers, wanted, latest)
    except asyncio.CancelledError:
        say(f"they go on; see them with `twinline servers watch {' '.join(servers)}`")
        raise
    except TimeoutError:
        moving = ", ".join(f"{each.name} is {state(each.state)}" for each in latest.values() if each.moving)
        raise CliError(
            f"gave up waiting after {timeout:g} s ({moving or 'no news'}); they go on: `twinline servers watch`",
            ExitCode.UNKNOWN,
        ) from None
    return ExitCode.SUCCEEDED if all(each.state == wanted for each in latest.values()) else ExitCode.FAILED


async def _follow(
    channel: grpc.aio.Channel,
    servers: Collection[str],
    wanted: pb.ServerState.ValueType,
    latest: dict[str, pb.Server],
) -> None:
    told: dict[str, pb.ServerState.ValueType] = {}
    with Progress(sys.stderr) as progress:
        async for change in rpc.ServerServiceStub(channel).WatchServers(pb.WatchServersRequest(servers=list(servers))):
            server = change.server
            latest[server.name] = server
            if not server.moving and server.state not in (wanted, told.get(server.name)):
                told[server.name] = server.state
                progress.clear()
                say(f"{server.name} came to {state(server.state)}; {stranding(server) or server.current.cause}")
            progress.show("  ".join(f"{each.name} {state(each.state)}" for each in latest.values()))
            if len(latest) == len(set(servers)) and not any(each.moving for each in latest.values()):
                return
