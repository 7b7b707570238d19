"""Two gateways on one PostgreSQL database."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.peers import postgres
from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from tests.peers.relay import Relay
from tests.peers.serving import Served
from tests.service.agent.processes import running_agent
from tests.service.agent_gateway.executors import Executor
from tests.service.agent_gateway.running import Gateway, gateway_settings, running_gateway
from tests.service.agent_gateway.simulated import finished, simulated
from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline.agent_gateway.v1 import fleet_pb2
from twinline_agent_gateway.errors import AgentRevoked, StreamFenced
from twinline_agent_gateway.settings import Settings


class Balancer(Relay):
    """What stands before the replicas: it leads to one of them at a time."""

    def lead_to(self, settings: Settings) -> None:
        """New connections go there."""
        self._target_port = int(settings.mesh_listen.rpartition(":")[2])


@pytest.fixture
def database(postgres_server: postgres.Server) -> Iterator[str]:
    with postgres_server.database() as url:
        yield url


@pytest.fixture
async def one(authority: Certificates, tmp_path: Path, keys: Served, database: str) -> AsyncIterator[Gateway]:
    key_file = tmp_path / "enrollment"
    settings = gateway_settings(authority, tmp_path / "1", keys, database, enrollment_key_file=key_file)
    async with running_gateway(authority, settings) as gateway:
        yield gateway


@pytest.fixture
async def two(authority: Certificates, tmp_path: Path, keys: Served, database: str) -> AsyncIterator[Gateway]:
    key_file = tmp_path / "enrollment"
    settings = gateway_settings(authority, tmp_path / "2", keys, database, enrollment_key_file=key_file)
    async with running_gateway(authority, settings) as gateway:
        yield gateway


@pytest.fixture
async def executor(one: Gateway) -> AsyncIterator[Executor]:
    """An executor whose stream is at the first replica."""
    async with Executor().connected(one.served.as_service("executor")) as connected:
        yield connected


@asynccontextmanager
async def in_its_own_process(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    """A gateway that can be killed."""
    prefix = "TWINLINE_AGENT_GATEWAY_"
    given = {f"{prefix}{name.upper()}": str(value) for name, value in settings.model_dump().items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "twinline_agent_gateway", env={**os.environ, **given}, stderr=None
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_task_reaches_an_agent_that_another_replica_holds(
    one: Gateway, two: Gateway, executor: Executor
) -> None:
    async with simulated(two) as agent:
        task = await executor.run(agent.agent_id, "echo hi", env={"A": "1"})
        (delivery,) = (await agent.orders()).deliveries
        assert (delivery.task_id, delivery.work.script, dict(delivery.work.env)) == (task, b"echo hi", {"A": "1"})
        await agent.report(finished(task, b"hi\n"))
        await eventually(lambda: executor.result(task))
        assert (await agent.orders()).acks[0].offset == 3
        await executor.order(agent.agent_id, cancel=[task])
        assert list((await agent.orders()).cancel) == [task]


async def test_presence_at_one_replica_is_told_at_the_other(one: Gateway, two: Gateway, executor: Executor) -> None:
    async with simulated(two) as agent:
        await eventually(lambda: agent.agent_id in executor.present)


async def test_a_report_that_is_forged_at_one_replica_does_not_pass_at_the_other(
    one: Gateway, two: Gateway, executor: Executor
) -> None:
    async with simulated(two) as honest, simulated(two) as forger:
        task, own = await executor.run(honest.agent_id, "true"), await executor.run(forger.agent_id, "true")
        await honest.orders()
        await forger.orders()
        await forger.report(finished(task, b"forged"), finished(own, b"mine"))
        await eventually(lambda: executor.result(own))
        assert executor.stored(task).reports == []


async def test_an_agent_that_moves_is_fenced_where_it_was_and_found_where_it_is(
    one: Gateway, two: Gateway, executor: Executor
) -> None:
    async with simulated(two) as before:
        await executor.run(before.agent_id, "true")
        await before.orders()
        async with simulated(one, before.agent_id) as after:
            with pytest.raises(StreamFenced):
                await before.hear()
            task = await executor.run(after.agent_id, "true")
            assert (await after.orders()).deliveries[0].task_id == task


async def test_an_agent_that_left_the_other_replica_is_not_connected(
    one: Gateway, two: Gateway, executor: Executor
) -> None:
    async with simulated(two) as agent:
        await executor.run(agent.agent_id, "true")
        await agent.orders()
    tasks: list[str] = []

    async def told() -> bool:
        tasks.append(await executor.run(agent.agent_id, "true"))
        return any(task in executor.not_connected for task in tasks)

    was_told: bool = await eventually(told)
    assert was_told


async def test_a_request_that_is_repeated_at_the_other_replica_gets_the_same_token(one: Gateway, two: Gateway) -> None:
    request = fleet_pb2.CreateEnrollmentRequest(server="web-1", request_id="the same request")
    first, again = await one.fleet.CreateEnrollment(request), await two.fleet.CreateEnrollment(request)
    assert (first.agent_id, first.token) == (again.agent_id, again.token)


async def test_an_agent_revoked_at_one_replica_is_cut_at_the_other(one: Gateway, two: Gateway) -> None:
    async with simulated(two) as agent:
        await one.fleet.RevokeAgent(fleet_pb2.RevokeAgentRequest(agent_id=agent.agent_id))
        with pytest.raises(AgentRevoked):
            await agent.hear()


async def test_when_a_replica_is_killed_its_agents_come_to_another_and_their_tasks_go_on(
    authority: Certificates, tmp_path: Path, keys: Served, database: str, one: Gateway, executor: Executor
) -> None:
    other = gateway_settings(authority, tmp_path / "other", keys, database, replica_limit=1.0)
    balancer = Balancer(0)
    await balancer.start()
    balancer.lead_to(other)
    enrollment = await one.enrollment()
    enrollment.connect_address = f"127.0.0.1:{balancer.port}"
    async with in_its_own_process(other) as replica, running_agent(tmp_path / "agent", enrollment) as agent:
        await eventually(lambda: agent.agent_id in executor.present, within=30)
        task = await executor.run(agent.agent_id, "echo one; sleep 2; echo two")
        await eventually(lambda: executor.stored(task).output == b"one\n")
        executor.present.clear()
        balancer.lead_to(one.settings)
        replica.kill()
        await eventually(lambda: agent.agent_id in executor.present, within=30)
        await executor.state(agent.agent_id, task)
        result = await eventually(lambda: executor.result(task))
        assert (result.end, executor.stored(task).output) == (pb.TaskReport.END_EXITED, b"one\ntwo\n")
    await balancer.stop()


async def test_agents_of_a_replica_that_was_killed_count_as_lost(
    authority: Certificates, tmp_path: Path, keys: Served, database: str, one: Gateway
) -> None:
    other = gateway_settings(authority, tmp_path / "other", keys, database, replica_limit=1.0)
    enrollment = await one.enrollment()
    enrollment.connect_address = other.mesh_listen
    async with in_its_own_process(other) as replica, running_agent(tmp_path / "agent", enrollment):
        await one.becomes(enrollment.agent_id, "CONNECTED")
        replica.kill()
        await one.becomes(enrollment.agent_id, "LOST")
