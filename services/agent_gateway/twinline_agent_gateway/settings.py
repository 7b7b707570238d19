"""What an operator may set."""

from pathlib import Path

from pydantic_settings import SettingsConfigDict

from twinline_kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from TWINLINE_AGENT_GATEWAY_* variables. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="TWINLINE_AGENT_GATEWAY_", frozen=True, extra="forbid")

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
    """How often this replica says that it lives, and looks for agents that connected elsewhere."""

    replica_limit: float = 10.0
    """How long a replica may be silent before its agents count as lost."""

    drain_rate: float = 400.0
    """Agents a second that are asked to come back after this replica stops."""
