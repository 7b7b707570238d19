"""A gateway on SQLite, an executor and a real agent. What depends on the database is tested with the gateway."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from tests.peers.serving import Served
from tests.service.agent.processes import AgentProcess, running_agent
from tests.service.agent_gateway.executors import Executor
from tests.service.agent_gateway.running import Gateway, gateway_settings, running_gateway


@pytest.fixture
async def gateway(authority: Certificates, tmp_path: Path, keys: Served) -> AsyncIterator[Gateway]:
    """The gateway that agents dial."""
    settings = gateway_settings(authority, tmp_path / "gateway", keys, f"sqlite:///{tmp_path / 'gateway.db'}")
    async with running_gateway(authority, settings) as running:
        yield running


@pytest.fixture
async def executor(gateway: Gateway) -> AsyncIterator[Executor]:
    """An executor that holds a stream to the gateway."""
    async with Executor().connected(gateway.served.as_service("executor")) as connected:
        yield connected


@pytest.fixture
async def agent(gateway: Gateway, executor: Executor, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    """A connected agent."""
    async with running_agent(tmp_path / "agent", await gateway.enrollment()) as running:
        await eventually(lambda: running.agent_id in executor.present, within=30)
        yield running
