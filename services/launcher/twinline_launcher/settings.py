"""What an operator may set."""

from datetime import timedelta
from pathlib import Path

from pydantic_settings import SettingsConfigDict

from twinline_kit.settings import ServiceSettings
from twinline_launcher.models import Generation
from twinline_launcher.states import LIMITS, State


class Settings(ServiceSettings):
    """Read from TWINLINE_LAUNCHER_* variables. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="TWINLINE_LAUNCHER_", frozen=True, extra="forbid")

    executor_address: str
    """Mesh address of the executor."""

    gateway_address: str
    """Mesh address of an agent gateway."""

    local_cloud_folder: Path | None = None
    """Where the local cloud keeps its machines; without it there is no local cloud."""

    sshd_program: str = ""
    """OpenSSH's server, for local v4 machines; empty: looked for."""

    connect_window_v4: float = 300.0
    """How long a v4 machine's SSH server is tried before its boot strands."""

    enrollment_window_v5: float = 600.0
    """How long a v5 machine's agent is waited for before its boot strands."""

    decommission_limit_v4: float = 100.0
    """For the whole decommission list on v4."""

    decommission_limit_v5: float = LIMITS[State.DECOMMISSIONING].total_seconds()
    """For the whole decommission list on v5."""

    pending_limit: float = LIMITS[State.PENDING].total_seconds()
    """How long a cloud may take to run a machine."""

    boot_limit: float = LIMITS[State.BOOTING].total_seconds()
    """For the whole boot list, again from each resume on."""

    stranded_decommission_limit: float = LIMITS[State.STRANDED_IN_DECOMMISSIONING].total_seconds()
    """How long a failed decommission waits for a person before the machine is ended by force."""

    limit_grace: float = 15.0
    """How much later than the limit of a list we stop waiting: the host ends a script first, and says how."""

    tick: float = 0.3
    """Between looks at a machine that moves."""

    idle_tick: float = 2.0
    """Between looks at the database when nothing is due."""

    cloud_check: float = 5.0
    """Between questions to a cloud about all its machines that rest."""

    lease: float = 6.0
    """How long a replica that died keeps others from its machines."""

    concurrency: int = 32
    """Machines a replica looks after at once."""

    def limit(self, state: State, generation: int) -> timedelta | None:
        """How long a machine of this generation may stay in `state`; None: as long as it wants."""
        seconds = {
            State.PENDING: self.pending_limit,
            State.BOOTING: self.boot_limit,
            State.DECOMMISSIONING: self.decommission_limit(generation),
            State.STRANDED_IN_DECOMMISSIONING: self.stranded_decommission_limit,
        }.get(state)
        return None if seconds is None else timedelta(seconds=seconds)

    def decommission_limit(self, generation: int) -> float:
        """For the whole decommission list."""
        return self.decommission_limit_v5 if generation == Generation.V5 else self.decommission_limit_v4

    def reach_window(self, generation: int) -> float:
        """How long to try to reach a machine that boots."""
        return self.enrollment_window_v5 if generation == Generation.V5 else self.connect_window_v4
