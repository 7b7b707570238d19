"""Between rows and protos."""

from twinline.agent_gateway.v1 import fleet_pb2 as pb
from twinline_agent_gateway.models import Known
from twinline_agent_gateway.states import State
from twinline_kit.times import timestamp

_STATES = {
    State.NEVER_ENROLLED: pb.Agent.STATE_NEVER_ENROLLED,
    State.CONNECTED: pb.Agent.STATE_CONNECTED,
    State.LOST: pb.Agent.STATE_LOST,
    State.REVOKED: pb.Agent.STATE_REVOKED,
}


def to_state(state: State) -> "pb.Agent.State.ValueType":
    """The state as the contract names it."""
    return _STATES[state]


def to_agent(known: Known) -> pb.Agent:
    """The agent as others see it."""
    agent, connected = known.agent, known.state is State.CONNECTED
    return pb.Agent(
        id=agent.id,
        server=agent.server,
        state=to_state(known.state),
        version=agent.version,
        facts=agent.facts,
        replica=agent.replica if connected else "",
        enroll_time=timestamp(agent.enroll_time),
        connect_time=timestamp(agent.connect_time),
        last_seen_time=timestamp(agent.last_seen_time),
    )
