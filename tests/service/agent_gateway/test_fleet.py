"""Agents as the services above see them."""

import pytest

from tests.service.agent_gateway.running import Gateway
from tests.service.agent_gateway.simulated import dialled
from twinline.agent_gateway.v1 import fleet_pb2 as pb
from twinline_agent_gateway.errors import AgentNotFound
from twinline_kit.errors import InvalidArgument


async def test_agents_are_listed_in_pages_by_id(gateway: Gateway) -> None:
    ids = sorted([(await gateway.enrollment()).agent_id for _ in range(5)])
    seen, token = [], ""
    for size in (2, 2, 1):
        page = await gateway.fleet.ListAgents(pb.ListAgentsRequest(page_size=2, page_token=token))
        assert len(page.agents) == size
        seen += [agent.id for agent in page.agents]
        token = page.next_page_token
    assert (seen, token) == (ids, "")


async def test_a_page_token_of_somebody_else_is_refused(gateway: Gateway) -> None:
    with pytest.raises(InvalidArgument):
        await gateway.fleet.ListAgents(pb.ListAgentsRequest(page_token="bm9uZQ"))


async def test_an_unknown_agent_is_not_found(gateway: Gateway) -> None:
    with pytest.raises(AgentNotFound):
        await gateway.fleet.GetAgent(pb.GetAgentRequest(agent_id="agent-none"))
    with pytest.raises(AgentNotFound):
        await gateway.fleet.RevokeAgent(pb.RevokeAgentRequest(agent_id="agent-none"))


async def test_a_nul_in_a_name_is_the_caller_s_fault(gateway: Gateway) -> None:
    for call in (
        gateway.fleet.GetAgent(pb.GetAgentRequest(agent_id="a\0")),
        gateway.fleet.CreateEnrollment(pb.CreateEnrollmentRequest(server="a\0", request_id="one")),
    ):
        with pytest.raises(InvalidArgument, match="holds a NUL"):
            await call


async def test_an_agent_is_shown_with_its_server_and_a_bounded_number_of_short_facts(gateway: Gateway) -> None:
    enrollment = await gateway.enrollment()
    async with dialled(gateway, enrollment.agent_id) as agent:
        await agent.say_hello(hostname="h" * 1000, **{f"fact{number}": "x" for number in range(100)})
        shown = await gateway.fleet.GetAgent(pb.GetAgentRequest(agent_id=enrollment.agent_id))
    assert (shown.id, shown.server, shown.state) == (enrollment.agent_id, "web-1", pb.Agent.STATE_CONNECTED)
    assert len(shown.facts) == 32
    assert max(map(len, shown.facts.values())) <= 256


async def test_an_enrolment_says_where_to_go_and_whom_to_trust(gateway: Gateway) -> None:
    enrollment = await gateway.enrollment()
    assert enrollment.enroll_address == gateway.served.bound.api
    assert enrollment.connect_address == gateway.served.bound.mesh
    assert enrollment.authority == gateway.served.certificates.ca
