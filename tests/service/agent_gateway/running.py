"""A real agent gateway on real ports."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.duration_pb2 import Duration

from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from tests.peers.ports import free_port
from tests.peers.serving import Served, serve
from twinline.agent_gateway.v1 import fleet_pb2, fleet_pb2_grpc
from twinline_agent_gateway import app
from twinline_agent_gateway.settings import Settings
from twinline_kit.ids import new_id


def gateway_settings(
    certificates: Certificates, folder: Path, keys: Served, database_url: str, **more: Any
) -> Settings:
    """Settings of a gateway that notices things quickly."""
    given = certificates.settings("agent_gateway", folder) | {
        "api_listen": f"127.0.0.1:{free_port()}",
        "mesh_listen": f"127.0.0.1:{free_port()}",
        "enrollment_key_file": folder / "enrollment",
        "tick": 0.1,
        **more,
    }
    return Settings(**given, database_url=database_url, keys_address=keys.bound.mesh)


@dataclass
class Gateway:
    """A running gateway, as the services above see it."""

    served: Served
    settings: Settings

    @property
    def fleet(self) -> "fleet_pb2_grpc.FleetServiceAsyncStub":
        """The fleet, as the launcher calls it."""
        return fleet_pb2_grpc.FleetServiceStub(self.served.as_service("launcher"))

    async def enrollment(self, **lifetime: int) -> fleet_pb2.CreateEnrollmentResponse:
        """A new agent's user-data; `lifetime` as of a Duration."""
        request = fleet_pb2.CreateEnrollmentRequest(server="web-1", request_id=new_id("request"))
        if lifetime:
            request.lifetime.CopyFrom(Duration(**lifetime))
        return await self.fleet.CreateEnrollment(request)

    async def state(self, agent_id: str) -> str:
        """The agent's state, without the prefix."""
        agent = await self.fleet.GetAgent(fleet_pb2.GetAgentRequest(agent_id=agent_id))
        return fleet_pb2.Agent.State.Name(agent.state).removeprefix("STATE_")

    async def becomes(self, agent_id: str, state: str) -> None:
        """Wait until the agent is in that state."""

        async def reached() -> bool:
            return await self.state(agent_id) == state

        became: bool = await eventually(reached, within=30)
        assert became


@asynccontextmanager
async def running_gateway(certificates: Certificates, settings: Settings) -> AsyncIterator[Gateway]:
    """Run it until the block ends."""
    async with serve(app.build, settings, certificates=certificates) as served:
        yield Gateway(served, settings)
