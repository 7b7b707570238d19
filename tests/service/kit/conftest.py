"""The echo service on real ports, and channels to it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import grpc.aio
import pytest

from tests.peers.authority import Certificates
from tests.service.kit.echo import SERVICE, Echo, People
from twinline_kit.client import api_channel, mesh_channel
from twinline_kit.server import Bound, Listen, serving

ANYWHERE = Listen("127.0.0.1:0", "127.0.0.1:0")


@pytest.fixture
async def bound(authority: Certificates) -> AsyncIterator[Bound]:
    async with serving(ANYWHERE, [SERVICE], identity=authority.service("keys"), verifier=People(), grace=0) as where:
        yield where


@pytest.fixture
async def keep() -> AsyncIterator[Callable[[grpc.aio.Channel], grpc.aio.Channel]]:
    """Closes channels when the test is over."""
    async with AsyncExitStack() as stack:

        def kept(channel: grpc.aio.Channel) -> grpc.aio.Channel:
            stack.push_async_callback(channel.close)
            return channel

        yield kept


Keep = Callable[[grpc.aio.Channel], grpc.aio.Channel]


@pytest.fixture
def person(bound: Bound, authority: Certificates, keep: Keep) -> Callable[[str | None], Echo]:
    """The echo service as the owner of a token sees it."""
    return lambda token: Echo(keep(api_channel(bound.api, authority.ca, token)))


@pytest.fixture
def service(bound: Bound, authority: Certificates, keep: Keep) -> Callable[[str], Echo]:
    """The echo service as another service sees it."""
    return lambda name: Echo(keep(mesh_channel(bound.mesh, authority.service(name))))


@pytest.fixture
def agent(bound: Bound, authority: Certificates, keep: Keep) -> Echo:
    """The echo service as an agent sees it."""
    return Echo(keep(mesh_channel(bound.mesh, authority.agent("agent-1"))))


@pytest.fixture
def admin(person: Callable[[str | None], Echo]) -> Echo:
    return person("admin-token")
