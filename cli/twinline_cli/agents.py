"""`twinline agents`: what runs on v5 servers."""

from typing import Annotated

import grpc.aio
import typer

from twinline.agent_gateway.v1 import fleet_pb2 as pb
from twinline.agent_gateway.v1 import fleet_pb2_grpc as rpc
from twinline.common.v1 import common_pb2
from twinline.launcher.v1 import servers_pb2, servers_pb2_grpc
from twinline_cli.commands import command, noun
from twinline_cli.connection import connected
from twinline_cli.errors import CliError
from twinline_cli.formats import Format
from twinline_cli.naming import near
from twinline_cli.options import Output
from twinline_cli.output import Column, show_list, show_one, when, word
from twinline_cli.paging import every
from twinline_kit.errors import NotFound

app = noun("What runs on v5 servers and dials out to Twinline.")


def state(agent: pb.Agent) -> str:
    """Whether it can be spoken to, in one word."""
    return word(pb.Agent.State, agent.state)


COLUMNS: list[Column[pb.Agent]] = [
    Column("ID", lambda agent: agent.id),
    Column("SERVER", lambda agent: agent.server),
    Column("STATE", state, is_state=True),
    Column("VERSION", lambda agent: agent.version),
    Column("LAST SEEN", lambda agent: when(agent.last_seen_time)),
]
DETAILS: list[Column[pb.Agent]] = [
    *COLUMNS,
    Column("ENROLLED", lambda agent: when(agent.enroll_time)),
    Column("CONNECTED", lambda agent: when(agent.connect_time)),
    Column("GATEWAY", lambda agent: agent.replica),
    Column("FACTS", lambda agent: ", ".join(f"{key}={value}" for key, value in sorted(agent.facts.items()))),
]


@command(app, "list")
async def list_all(output: Output = Format.TABLE) -> None:
    """List the agents and whether they are connected."""
    async with connected() as channel:
        found = await _all(channel)
    show_list(found, COLUMNS, output, empty="no agents yet; they come with the launch of v5 servers")


@command(app, "show")
async def show(
    agent: Annotated[str, typer.Argument(help="An agent's id, or the name of its server.")],
    output: Output = Format.TABLE,
) -> None:
    """Show one agent."""
    async with connected() as channel:
        stub = rpc.FleetServiceStub(channel)
        try:
            found = await stub.GetAgent(pb.GetAgentRequest(agent_id=agent))
        except NotFound:
            found = await stub.GetAgent(pb.GetAgentRequest(agent_id=await _agent_of(channel, agent)))
    show_one(found, DETAILS, output)


async def _agent_of(channel: grpc.aio.Channel, name: str) -> str:
    """The id of the agent of a server's present machine. A CliError says why there is none, and what to do next."""
    try:
        server = await servers_pb2_grpc.ServerServiceStub(channel).GetServer(servers_pb2.GetServerRequest(server=name))
    except NotFound as error:
        hint = near(name, [known for each in await _all(channel) for known in (each.id, each.server)])
        raise CliError(f"no agent {name}; `twinline agents list` shows what there is{hint}") from error
    if server.current.agent_id:
        return server.current.agent_id
    if server.generation == common_pb2.GENERATION_V5:
        raise CliError(f"{server.name} has no agent yet; it comes with `twinline servers launch {server.name}`")
    raise CliError(f"{server.name} has no agent: it is a v4 server, which is reached by SSH; agents come with v5")


async def _all(channel: grpc.aio.Channel) -> list[pb.Agent]:
    return await every(rpc.FleetServiceStub(channel).ListAgents, pb.ListAgentsRequest(), "agents")
