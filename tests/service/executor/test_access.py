"""Every RPC, called by everybody."""

from collections.abc import Awaitable, Callable

import grpc.aio
import pytest

from tests.service.executor.conftest import Executor
from twinline.executor.v1 import runs_pb2, scripts_pb2, targets_pb2
from twinline_executor.access import ACCESS
from twinline_kit.errors import Error, PermissionDenied, Unauthenticated

FILES = (runs_pb2.DESCRIPTOR, scripts_pb2.DESCRIPTOR, targets_pb2.DESCRIPTOR)
METHODS = [
    f"/{service.full_name}/{method.name}"
    for file in FILES
    for service in file.services_by_name.values()
    for method in service.methods
]
WRITING = {"StartRun", "CancelRun", "PushScript", "ApplyTargets", "DeleteTarget"}
SERVICES = ("keys", "launcher", "executor", "agent_gateway", "stranger")


def test_every_rpc_is_in_the_table_and_nothing_else_is() -> None:
    assert sorted(ACCESS) == sorted(METHODS)


@pytest.mark.parametrize("method", METHODS)
async def test_an_rpc_is_open_to_those_who_may_and_closed_to_all_others(executor: Executor, method: str) -> None:
    callers = {person: executor.served.as_person(person) for person in ("admin", "observer")}
    callers |= {service: executor.served.as_service(service) for service in SERVICES}
    callers |= {"an agent": executor.served.as_agent("agent-1")}
    refused = {name for name, channel in callers.items() if isinstance(await answer(channel, method), PermissionDenied)}
    writes = method.rpartition("/")[2] in WRITING
    assert callers.keys() - refused == {"admin", "launcher"} | (set() if writes else {"observer"})


@pytest.mark.parametrize("token", [None, "x" * 43])
async def test_every_rpc_is_closed_to_strangers(executor: Executor, token: str | None) -> None:
    channel = executor.served.with_token(token)
    for method in METHODS:
        assert isinstance(await answer(channel, method), Unauthenticated), method


async def answer(channel: grpc.aio.Channel, method: str) -> Error | None:
    """How the service takes an empty request."""
    try:
        call: Callable[..., Awaitable[bytes]] = channel.unary_unary(method)
        await call(b"", timeout=10)
    except Error as error:
        return error
    return None
