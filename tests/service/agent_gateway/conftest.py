"""A gateway on each kind of database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.peers.authority import Certificates
from tests.peers.serving import Served
from tests.service.agent_gateway.executors import Executor
from tests.service.agent_gateway.running import Gateway, gateway_settings, running_gateway


@pytest.fixture
async def gateway(authority: Certificates, tmp_path: Path, keys: Served, database_url: str) -> AsyncIterator[Gateway]:
    """The service, with a real keys service behind it."""
    settings = gateway_settings(authority, tmp_path / "gateway", keys, database_url)
    async with running_gateway(authority, settings) as running:
        yield running


@pytest.fixture
async def executor(gateway: Gateway) -> AsyncIterator[Executor]:
    """An executor that holds a stream to the gateway."""
    async with Executor().connected(gateway.served.as_service("executor")) as connected:
        yield connected
