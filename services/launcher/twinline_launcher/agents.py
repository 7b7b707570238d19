"""A v5 machine's agent: what it is given at launch, and its end."""

import json
from datetime import timedelta

import grpc.aio

from twinline.agent_gateway.v1 import fleet_pb2 as pb
from twinline.agent_gateway.v1 import fleet_pb2_grpc as rpc
from twinline_kit.errors import NotFound
from twinline_kit.times import duration
from twinline_launcher.turns import Turn

# A boot that strands because the agent cannot enrol must be resumable the next morning.
_TOKEN_LIFETIME = timedelta(hours=24)


class Agents:
    """Prepares agents at the gateway, and revokes them there."""

    def __init__(self, gateway: grpc.aio.Channel) -> None:
        self._fleet = rpc.FleetServiceStub(gateway)

    async def prepare(self, turn: Turn) -> bytes:
        """The machine's user-data (JSON), with its token. Only for machines that the cloud does not know yet.

        The token is not stored here: a launch that is repeated asks for it again. The gateway gives the same one, so
        that it does not matter whose launch the cloud took.
        """
        machine, lifetime = turn.instance, duration(_TOKEN_LIFETIME)
        made = await self._fleet.CreateEnrollment(
            pb.CreateEnrollmentRequest(server=machine.server_name, request_id=machine.id, lifetime=lifetime)
        )
        await turn.save(agent_id=made.agent_id)
        content = {
            "enroll_address": made.enroll_address,
            "connect_address": made.connect_address,
            "authority": made.authority.decode(),
            "token": made.token,
            "agent_id": made.agent_id,
        }
        return json.dumps(content).encode()

    async def revoke(self, turn: Turn) -> None:
        """End the machine's agent for good, if it has one."""
        if not turn.instance.agent_id:
            return
        try:
            await self._fleet.RevokeAgent(pb.RevokeAgentRequest(agent_id=turn.instance.agent_id))
        except NotFound:
            pass  # the gateway lost it: nothing is left to end
