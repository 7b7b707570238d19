"""Every RPC, called by everybody."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc.aio
import pytest

from tests.peers.authority import Certificates
from tests.peers.keys import running_keys
from tests.peers.serving import Served
from tests.service.keys.conftest import FILES
from twinline_keys.access import ACCESS
from twinline_kit.client import api_channel
from twinline_kit.errors import Error, PermissionDenied, Unauthenticated, Unavailable

METHODS = [
    f"/{service.full_name}/{method.name}"
    for file in FILES
    for service in file.services_by_name.values()
    for method in service.methods
]
WHO_MAY = {
    "CreateCloudKey": {"admin"},
    "ImportCloudKey": {"admin"},
    "UploadCloudKeyMaterial": {"admin"},
    "GetCloudKey": {"admin", "observer", "launcher", "executor"},
    "ListCloudKeys": {"admin", "observer"},
    "DeleteCloudKey": {"admin"},
    "Sign": {"executor"},
    "SetCredential": {"admin"},
    "ListCredentials": {"admin", "observer", "launcher", "executor"},
    "DeleteCredential": {"admin"},
    "OpenCredentials": {"executor"},
    "Authenticate": {"launcher", "executor", "agent_gateway"},
    "WhoAmI": {"admin", "observer"},
    "SignAgentCertificate": {"agent_gateway"},
}
"""Said twice, here and in the table, because a slip in it opens keys to those who must not have them."""

PEOPLE = ("admin", "observer")
SERVICES = ("keys", "launcher", "executor", "agent_gateway", "stranger")


@pytest.fixture
async def keys(authority: Certificates, tmp_path: Path) -> AsyncIterator[Served]:
    async with running_keys(authority, tmp_path / "keys") as served:
        yield served


def test_every_rpc_is_in_the_table_and_nothing_else_is() -> None:
    assert sorted(ACCESS) == sorted(METHODS)
    assert sorted(WHO_MAY) == sorted(method.rpartition("/")[2] for method in METHODS)


@pytest.mark.parametrize("method", METHODS)
async def test_an_rpc_is_open_to_those_who_may_and_closed_to_all_others(keys: Served, method: str) -> None:
    callers = {person: keys.as_person(person) for person in PEOPLE}
    callers |= {service: keys.as_service(service) for service in SERVICES}
    callers |= {"an agent": keys.as_agent("agent-1")}
    refused = {name for name, channel in callers.items() if isinstance(await answer(channel, method), PermissionDenied)}
    assert callers.keys() - refused == WHO_MAY[method.rpartition("/")[2]]


@pytest.mark.parametrize(("token", "reason"), [(None, "UNAUTHENTICATED"), ("x" * 43, "TOKEN_UNKNOWN")])
async def test_every_rpc_is_closed_to_strangers(keys: Served, token: str | None, reason: str) -> None:
    channel = keys.with_token(token)
    for method in METHODS:
        refusal = await answer(channel, method)
        assert isinstance(refusal, Unauthenticated), method
        assert refusal.reason == reason


async def test_the_mesh_port_wants_a_certificate_whatever_token_is_shown(keys: Served) -> None:
    async with api_channel(keys.bound.mesh, keys.certificates.ca, keys.people["admin"]) as channel:
        for method in METHODS:
            assert isinstance(await answer(channel, method), Unavailable), method


async def answer(channel: grpc.aio.Channel, method: str) -> Error | None:
    """How the service takes an empty request."""
    try:
        call: Callable[..., Awaitable[bytes]] = channel.unary_unary(method)
        await call(b"", timeout=10)
    except Error as error:
        return error
    return None
