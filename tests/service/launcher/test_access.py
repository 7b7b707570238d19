"""Every RPC, called by everybody."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
import pytest

from tests.service.launcher.world import Launcher
from twinline.launcher.v1 import catalog_pb2, servers_pb2
from twinline_kit.errors import Error, PermissionDenied, Unauthenticated
from twinline_launcher.access import ACCESS

METHODS = [
    f"/{service.full_name}/{method.name}"
    for file in (servers_pb2.DESCRIPTOR, catalog_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
    for method in service.methods
]
READ = ("Get", "List", "Preflight", "Watch")
SERVICES = ("keys", "launcher", "executor", "agent_gateway", "stranger")


def test_every_rpc_is_in_the_table_and_nothing_else_is() -> None:
    assert sorted(ACCESS) == sorted(METHODS)


async def test_admins_may_all_observers_may_read_and_nobody_else_may_anything(launcher: Launcher) -> None:
    served = launcher.served
    callers = {person: served.as_person(person) for person in ("admin", "observer")}
    callers |= {service: served.as_service(service) for service in SERVICES}
    callers |= {"an agent": served.as_agent("agent-1")}
    for method in METHODS:
        refused = {name for name, each in callers.items() if isinstance(await answer(each, method), PermissionDenied)}
        may = {"admin", "observer"} if method.rpartition("/")[2].startswith(READ) else {"admin"}
        assert callers.keys() - refused == may, method


@pytest.mark.parametrize(("token", "reason"), [(None, "UNAUTHENTICATED"), ("x" * 43, "TOKEN_UNKNOWN")])
async def test_every_rpc_is_closed_to_strangers(launcher: Launcher, token: str | None, reason: str) -> None:
    channel = launcher.served.with_token(token)
    for method in METHODS:
        refusal = await answer(channel, method)
        assert isinstance(refusal, Unauthenticated), method
        assert refusal.reason == reason


async def answer(channel: grpc.aio.Channel, method: str) -> Error | None:
    """How the service takes an empty request."""
    try:
        if method.endswith("WatchServers"):
            watch: Any = channel.unary_stream(method)
            async for _ in watch(b"", timeout=0.5):
                break
            return None
        call: Callable[..., Awaitable[bytes]] = channel.unary_unary(method)
        await call(b"", timeout=10)
    except Error as error:
        return error
    return None
