"""What an operator may set."""

from pydantic_settings import SettingsConfigDict

from twinline_kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from TWINLINE_EXECUTOR_* variables. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="TWINLINE_EXECUTOR_", frozen=True, extra="forbid")

    replica: str = ""
    """This replica's id; empty: a new random one at each start. One that is kept goes on with its runs at once."""

    gateway_address: str = ""
    """Mesh address of an agent gateway; empty: v5 targets cannot be reached."""

    unknown_after: float = 120.0
    """How long a host that runs a task may be out of reach before the task is said to be UNKNOWN."""

    restate_after: float = 30.0
    """How long an agent may be silent about a task before the task is stated again."""

    beat_interval: float = 2.0
    """How often this replica says that it lives."""

    beat_limit: float = 10.0
    """How long another replica may be silent before its runs are taken over."""

    max_output: int = 64 * 1024 * 1024
    """Bytes of output a host keeps of one task; a run keeps the limit that it was started with."""

    kill_after: float = 10.0
    """From TERM to KILL on the host."""

    ssh_connect_timeout: float = 10.0
    """For one attempt to connect and log in."""

    ssh_connecting: int = 64
    """Connections being opened at once."""

    ssh_connections: int = 1000
    """Connections open at once."""

    ssh_idle: float = 60.0
    """How long a connection is kept for the next task."""

    ssh_key_known: float = 60.0
    """How long a cloud key is used without asking whether it is still there, over open connections too."""

    ssh_patience: float = 60.0
    """How long a task waits for its turn to connect before it says so, and looks at its deadline again."""

    ssh_silence: float = 30.0
    """How long a host may say nothing about a task; it should speak every 5 s."""

    ssh_keepalive: float = 15.0
    """Between questions to a silent host; three without an answer cut the connection."""
