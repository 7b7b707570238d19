"""What an operator may set."""

from pathlib import Path

from pydantic import ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from twinline_kit.settings import ServiceSettings

_EVERYWHERE = frozenset({"", "*", "0.0.0.0", "[::]", "::"})  # noqa: S104  # they are refused
"""Hosts to listen on that nobody can dial."""

_LISTENS = {
    "advertised_mesh_address": "mesh_listen",
    "advertised_enroll_address": "api_listen",
    "advertised_connect_address": "mesh_listen",
}


class Settings(ServiceSettings):
    """Read from TWINLINE_AGENT_GATEWAY_* variables. Times are in seconds."""

    model_config = SettingsConfigDict(
        env_prefix="TWINLINE_AGENT_GATEWAY_", frozen=True, extra="forbid", validate_default=True
    )

    enrollment_key_file: Path
    """Holds the secret that enrolment tokens are derived with, the same for all replicas. Made at the first start."""

    replica: str = ""
    """This replica's id; empty: a new random one at each start."""

    advertised_mesh_address: str = ""
    """host:port at which other replicas reach this one's mesh port; empty: mesh_listen."""

    advertised_enroll_address: str = ""
    """host:port that agents enrol at (the API port, or what stands before it); empty: api_listen."""

    advertised_connect_address: str = ""
    """host:port that agents connect to (the mesh port, or what stands before it); empty: mesh_listen."""

    certificate_lifetime: float = 86_400.0
    """Of an agent's certificate."""

    heartbeat: float = 30.0
    """How often an agent speaks when it has nothing to say; silent for three times as long, it is cut."""

    tick: float = 1.0
    """How often this replica looks for agents that connected elsewhere."""

    replica_limit: float = 10.0
    """How long a replica may be silent before its agents count as lost. It speaks four times as often."""

    drain_rate: float = 400.0
    """Agents a second that are asked to come back after this replica stops."""

    @field_validator(*_LISTENS)
    @classmethod
    def _can_be_dialled(cls, address: str, known: ValidationInfo) -> str:
        """What stands in for an address that is not given must be one that agents and replicas can dial."""
        listen = known.data[_LISTENS[known.field_name or ""]]
        host, _, port = listen.rpartition(":")
        if not address and (host in _EVERYWHERE or port == "0"):
            raise ValueError(f"it is empty, and nobody can dial {listen}: give the host:port that others reach it by")
        return address
