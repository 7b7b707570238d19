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

RESTING = frozenset(
    {
        pb.SERVER_STATE_INACTIVE,
        pb.SERVER_STATE_OPERATIONAL,
        pb.SERVER_STATE_STRANDED_IN_BOOTING,
        pb.SERVER_STATE_TERMINATED,
        pb.SERVER_STATE_ERROR,
    }
)
"""States that a server leaves only when somebody asks for it."""


async def until_at_rest(
    channel: grpc.aio.Channel, servers: Collection[str], wanted: pb.ServerState.ValueType, timeout: float
) -> ExitCode:
    """Wait until all `servers` (names) rest. FAILED when one rests elsewhere than in `wanted`, and says why.

    A CliError when it takes longer than `timeout` seconds: the servers go on.
    """
    latest: dict[str, pb.Server] = {}
    try:
        async with asyncio.timeout(timeout):
            await _follow(channel, servers, latest)
    except TimeoutError:
        moving = ", ".join(
            f"{each.name} is {state(each.state)}" for each in latest.values() if each.state not in RESTING
        )
        raise CliError(
            f"gave up waiting after {timeout:g} s ({moving or 'no news'}); they go on: `twinline servers watch`",
            ExitCode.UNKNOWN,
        ) from None
    astray = [each for each in latest.values() if each.state != wanted]
    for server in astray:
        why = stranding(server) or server.current.cause
        say(f"{server.name} came to {state(server.state)}; {why}")
    return ExitCode.FAILED if astray else ExitCode.SUCCEEDED


async def _follow(channel: grpc.aio.Channel, servers: Collection[str], latest: dict[str, pb.Server]) -> None:
    with Progress(sys.stderr) as progress:
        async for change in rpc.ServerServiceStub(channel).WatchServers(pb.WatchServersRequest(servers=list(servers))):
            latest[change.server.name] = change.server
            progress.show("  ".join(f"{each.name} {state(each.state)}" for each in latest.values()))
            if len(latest) == len(set(servers)) and all(each.state in RESTING for each in latest.values()):
                return
