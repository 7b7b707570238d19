"""Agents' streams: who is let in, and who has to go."""

import asyncio
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from tests.peers.serving import Served
from tests.service.agent_gateway.executors import Executor
from tests.service.agent_gateway.running import Gateway, gateway_settings, running_gateway
from tests.service.agent_gateway.simulated import dialled, simulated
from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline.agent_gateway.v1 import fleet_pb2
from twinline_agent_gateway import router
from twinline_agent_gateway.errors import (
    AgentRevoked,
    AgentSilent,
    AgentUnknown,
    StreamFenced,
    StreamMalformed,
)


async def test_an_agent_is_welcome_and_said_to_be_connected_until_it_goes(gateway: Gateway) -> None:
    async with simulated(gateway) as agent:
        assert await gateway.state(agent.agent_id) == "CONNECTED"
        connected = await gateway.fleet.GetAgent(fleet_pb2.GetAgentRequest(agent_id=agent.agent_id))
        assert connected.version == "0.0.1"
        assert connected.connect_time.seconds > 0
    await gateway.becomes(agent.agent_id, "NEVER_ENROLLED")  # it never spent its token


async def test_what_an_agent_says_of_itself_is_kept_without_control_characters(gateway: Gateway) -> None:
    agent_id = (await gateway.enrollment()).agent_id
    async with dialled(gateway, agent_id) as agent:
        await agent.say_hello("1.0\0", **{"o\0s": "deb\x1bian\0"})
        known = await gateway.fleet.GetAgent(fleet_pb2.GetAgentRequest(agent_id=agent_id))
    assert (known.version, dict(known.facts)) == ("1.0 ", {"o s": "deb ian "})


async def test_connected_agents_are_measured(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    counter = MeterProvider([reader]).get_meter("test").create_up_down_counter("twinline.agents.connected")
    monkeypatch.setattr(router, "_CONNECTED", counter)
    async with simulated(gateway) as one, simulated(gateway), dialled(gateway, one.agent_id) as again:
        await again.say_hello()
        assert measured(reader) == 2
    await eventually(lambda: measured(reader) == 0)


def measured(reader: InMemoryMetricReader) -> float:
    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    return sum(point.value for point in metric.data.data_points if isinstance(point, NumberDataPoint))


async def test_the_epoch_grows_and_the_newer_stream_fences_the_older(gateway: Gateway) -> None:
    agent_id = (await gateway.enrollment()).agent_id
    async with dialled(gateway, agent_id) as older, dialled(gateway, agent_id) as newer:
        first, second = await older.say_hello(), await newer.say_hello()
        assert second.epoch == first.epoch + 1
        with pytest.raises(StreamFenced):
            await older.hear()
        await newer.heartbeat()


async def test_a_stream_that_begins_with_anything_but_hello_is_refused(gateway: Gateway) -> None:
    agent_id = (await gateway.enrollment()).agent_id
    async with dialled(gateway, agent_id) as agent:
        await agent.heartbeat()
        with pytest.raises(StreamMalformed):
            await agent.hear()


async def test_an_agent_that_was_never_prepared_is_refused(gateway: Gateway) -> None:
    async with dialled(gateway, "agent-of-nobody") as agent:
        with pytest.raises(AgentUnknown):
            await agent.say_hello()


async def test_a_revoked_agent_is_cut_and_not_let_in_again(gateway: Gateway) -> None:
    async with simulated(gateway) as agent:
        await gateway.fleet.RevokeAgent(fleet_pb2.RevokeAgentRequest(agent_id=agent.agent_id))
        with pytest.raises(AgentRevoked):
            await agent.hear()
        async with dialled(gateway, agent.agent_id) as again:
            with pytest.raises(AgentRevoked):
                await again.say_hello()
    assert await gateway.state(agent.agent_id) == "REVOKED"


async def test_a_report_that_is_too_large_ends_its_stream_only(gateway: Gateway) -> None:
    async with simulated(gateway) as bad, simulated(gateway) as good:
        await bad.report(pb.TaskReport(task_id="task-1", data=bytes(1 << 20)))
        with pytest.raises(StreamMalformed):
            await bad.hear()
        await good.heartbeat()


async def test_a_silent_agent_is_cut(authority: Certificates, tmp_path: Path, keys: Served, database_url: str) -> None:
    settings = gateway_settings(authority, tmp_path / "gateway", keys, database_url, heartbeat=0.1)
    async with running_gateway(authority, settings) as gateway, simulated(gateway) as agent:
        with pytest.raises(AgentSilent):
            await agent.hear()


async def test_300_agents_at_once_are_all_welcome_and_their_presence_is_told(
    gateway: Gateway, executor: Executor
) -> None:
    ids = [(await gateway.enrollment()).agent_id for _ in range(300)]

    async def connect(agent_id: str) -> int:
        async with dialled(gateway, agent_id) as agent:
            welcome = await agent.say_hello()
            await eventually(lambda: agent_id in executor.present, within=60)
            return welcome.epoch

    assert await asyncio.gather(*map(connect, ids)) == [1] * 300


async def test_agents_are_sent_away_in_slots_of_their_own_when_the_gateway_stops(
    authority: Certificates, tmp_path: Path, keys: Served, database_url: str
) -> None:
    settings = gateway_settings(authority, tmp_path / "gateway", keys, database_url, drain_rate=1.0)
    async with running_gateway(authority, settings) as gateway:
        ids = [(await gateway.enrollment()).agent_id for _ in range(3)]
        agents = [asyncio.ensure_future(_sent_away(gateway, agent_id)) for agent_id in ids]
        for agent_id in ids:
            await gateway.becomes(agent_id, "CONNECTED")
    assert sorted(await asyncio.gather(*agents)) == [1, 2, 3]


async def _sent_away(gateway: Gateway, agent_id: str) -> int:
    """Seconds that the agent is asked to stay away; it goes at once."""
    async with simulated(gateway, agent_id) as agent:
        return (await agent.hear()).drain.come_back_after.ToSeconds()
