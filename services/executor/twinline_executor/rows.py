"""What the stores take and give: plain values that know nothing of a database."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from twinline_executor.inputs import Declaration
from twinline_executor.states import Line, RunState, State

Counts = dict[State, int]


@dataclass(frozen=True, slots=True)
class Target:
    """A host and how to reach it. `generation` is 4 or 5; v4 has host, port, username and cloud_key, v5 agent_id."""

    id: str
    name: str
    generation: int
    deployment: str = ""
    state: str = ""
    tags: tuple[str, ...] = ()
    host: str = ""
    port: int = 0
    username: str = ""
    cloud_key: str = ""
    host_key: str = ""
    host_key_learned: bool = False
    agent_id: str = ""
    update_time: datetime | None = None

    @property
    def line(self) -> Line:
        """Which line reaches it."""
        return Line.to(self.generation)


class Candidate(NamedTuple):
    """What of a target its being picked for a run depends on, and its task needs. A run may look at ten thousand."""

    id: str
    name: str
    generation: int
    deployment: str
    state: str
    tags: Sequence[str]
    agent_id: str

    @property
    def line(self) -> Line:
        """Which line reaches it."""
        return Line.to(self.generation)


@dataclass(frozen=True, slots=True)
class SeenHostKey:
    """The host key that a target's address showed at first contact, one OpenSSH line."""

    target_id: str
    host: str
    port: int
    host_key: str


@dataclass(frozen=True, slots=True)
class Script:
    """One revision of a script."""

    name: str
    revision: int
    description: str
    inputs: tuple[Declaration, ...]
    source: bytes
    digest: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Run:
    """One script or command on some targets. Times to reach a host and on it are in seconds."""

    id: str
    request_id: str
    script: str
    revision: int
    command: str
    selector: str
    inputs: dict[str, str]
    timeout: float | None
    reach_timeout: float
    started_by: str
    create_time: datetime
    traceparent: str = ""
    state: RunState = RunState.RUNNING
    end_time: datetime | None = None
    canceled: bool = False
    open: bool = True
    owner: str = ""
    targets: tuple[str, ...] = ()
    max_output: int | None = None
    asked: str | None = None

    def output_limit(self, usual: int) -> int:
        """Bytes of output that hosts are told to keep of each task; `usual` where an older version did not note it."""
        return usual if self.max_output is None else self.max_output


class Task(NamedTuple):
    """One script on one host. A tuple, as a run may make ten thousand at once."""

    id: str
    run_id: str
    target_id: str
    target_name: str
    line: Line
    agent_id: str
    create_time: datetime
    state: State = State.PENDING
    settled: bool = False
    reason: str = ""
    message: str = ""
    exit_status: int | None = None
    signal: int = 0
    output_size: int = 0
    output_truncated: bool = False
    output_sha256: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None
    change: int = 0


@dataclass(slots=True)
class Result:
    """What is to be written about one task: its present state, and the output that follows what is stored."""

    task_id: str
    run_id: str
    expected_size: int
    state: State
    settled: bool
    reason: str
    message: str
    exit_status: int | None
    signal: int
    output_size: int
    output_truncated: bool
    output_sha256: str
    start_time: datetime | None
    end_time: datetime | None
    data: bytes = field(repr=False, default=b"")
