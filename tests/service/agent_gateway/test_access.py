"""Every RPC, called by everybody."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc.aio
import pytest

from tests.peers.authority import Certificates
from tests.peers.serving import Served
from tests.service.agent_gateway.running import gateway_settings, running_gateway
from twinline.agent_gateway.v1 import agents_pb2, fleet_pb2
from twinline_agent_gateway.access import ACCESS
from twinline_kit.errors import Error, PermissionDenied, Unauthenticated

METHODS = [
    f"/{service.full_name}/{method.name}"
    for file in (agents_pb2.DESCRIPTOR, fleet_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
    for method in service.methods
]
PEOPLE = {"admin", "observer"}
SERVICES = {"keys", "launcher", "executor", "agent_gateway", "stranger"}
WHO_MAY = {
    "Enroll": {"nobody", "agent", *PEOPLE, *SERVICES},
    "Renew": {"agent"},
    "Connect": {"agent"},
    "CreateEnrollment": {"admin", "launcher"},
    "GetAgent": {"admin", "observer", "launcher", "executor"},
    "ListAgents": {"admin", "observer", "launcher", "executor"},
    "RevokeAgent": {"admin", "launcher"},
    "Dispatch": {"executor", "agent_gateway"},
}
"""Said twice, here and in the table, because a slip in it opens hosts to those who must not have them."""


@pytest.fixture
async def served(authority: Certificates, tmp_path: Path, keys: Served) -> AsyncIterator[Served]:
    settings = gateway_settings(authority, tmp_path / "gateway", keys, f"sqlite:///{tmp_path / 'gateway.db'}")
    async with running_gateway(authority, settings) as gateway:
        yield gateway.served


def test_every_rpc_is_in_the_table_and_nothing_else_is() -> None:
    assert sorted(ACCESS) == sorted(METHODS)
    assert sorted(WHO_MAY) == sorted(method.rpartition("/")[2] for method in METHODS)


@pytest.mark.parametrize("method", METHODS)
async def test_an_rpc_is_open_to_those_who_may_and_closed_to_all_others(
    served: Served, keys: Served, method: str
) -> None:
    callers = {person: served.with_token(keys.people[person]) for person in PEOPLE}
    callers |= {service: served.as_service(service) for service in SERVICES}
    callers |= {"agent": served.as_agent("agent-1"), "nobody": served.with_token(None)}
    answers = {name: await answer(channel, method) for name, channel in callers.items()}
    refused = {name for name, error in answers.items() if is_refusal(error)}
    assert callers.keys() - refused == WHO_MAY[method.rpartition("/")[2]]


async def test_a_wrong_token_is_refused_everywhere_but_at_enrolment(served: Served) -> None:
    for method in METHODS:
        if not method.endswith("/Enroll"):
            assert isinstance(await answer(served.with_token("x" * 43), method), Unauthenticated), method


def is_refusal(error: Error | None) -> bool:
    """Whether the access table, and not the handler, said no."""
    return isinstance(error, PermissionDenied | Unauthenticated) and error.reason in (
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
    )


async def answer(channel: grpc.aio.Channel, method: str) -> Error | None:
    """How the service takes an empty request."""
    try:
        call: Callable[..., Awaitable[bytes]] = channel.unary_unary(method)
        await call(b"", timeout=10)
    except Error as error:
        return error
    return None
