"""Who may call what. A method that is not here is refused."""

from twinline_kit.auth import Access, Grant

_AGENTS = "/twinline.agent_gateway.v1.AgentService"
_FLEET = "/twinline.agent_gateway.v1.FleetService"
_READ = frozenset({Grant.OBSERVER, Grant.LAUNCHER, Grant.EXECUTOR})

AGENTS: Access = {
    # A machine that enrols has nothing but its token, which the handler checks.
    f"{_AGENTS}/Enroll": frozenset({Grant.ANYONE}),
    f"{_AGENTS}/Renew": frozenset({Grant.AGENT}),
    f"{_AGENTS}/Connect": frozenset({Grant.AGENT}),
}

FLEET: Access = {
    f"{_FLEET}/CreateEnrollment": frozenset({Grant.LAUNCHER, Grant.ADMIN}),
    f"{_FLEET}/GetAgent": _READ,
    f"{_FLEET}/ListAgents": _READ,
    f"{_FLEET}/RevokeAgent": frozenset({Grant.LAUNCHER, Grant.ADMIN}),
    # Not even an admin: what goes down here runs as root on hosts, without an audit entry.
    f"{_FLEET}/Dispatch": frozenset({Grant.EXECUTOR, Grant.AGENT_GATEWAY}),
}

ACCESS: Access = {**AGENTS, **FLEET}
