"""What a demo found, as the one object that `-o json` prints."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from twinline.common.v1 import common_pb2
from twinline.executor.v1 import runs_pb2
from twinline.launcher.v1 import servers_pb2 as pb
from twinline_cli import server_view
from twinline_cli.results import line, task_state

_MICROS = 1_000_000


@dataclass
class Stranded:
    """The server that could not boot, why, and whether it went on."""

    server: str
    reason: str
    failed_step: str
    resumed: bool = False


@dataclass
class Record:
    """Filled in while the demo goes on. Costs are in dollars, times as the protos have them in JSON."""

    servers: list[dict[str, Any]] = field(default_factory=list)
    preflight: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    stranded: Stranded | None = None
    left_processes: int = 0

    def add_server(self, server: pb.Server, cloud_key: str, history: Sequence[pb.Transition]) -> None:
        """A server at its end: every state it came to, and what it cost."""
        self.servers.append(
            {
                "name": server.name,
                "generation": "v5" if server.generation == common_pb2.GENERATION_V5 else "v4",
                "cloud_key": cloud_key,
                "states": [
                    {"state": state_name(step.to), "time": step.time.ToJsonString(), "cause": step.cause}
                    for step in history
                ],
                "cost": server.current.cost.micros / _MICROS,
                "stranded_cost": server.current.cost.stranded_micros / _MICROS,
            }
        )

    def add_preflight(self, server: str, violations: Sequence[pb.Violation]) -> None:
        """What stood in the way of a launch."""
        found = [{"reason": each.reason, "message": each.message} for each in violations]
        self.preflight.append({"server": server, "violations": found})

    def add_run(self, run: runs_pb2.Run, tasks: Sequence[runs_pb2.Task], outputs: Sequence[bytes]) -> None:
        """A run that has ended."""
        self.runs.append(
            {
                "script": run.script,
                "tasks": [
                    {
                        "server": task.target_name,
                        "line": line(task),
                        "state": task_state(task).upper(),
                        "exit_status": task.exit_status if task.HasField("exit_status") else None,
                        "output": output.decode(errors="backslashreplace"),
                        "output_sha256": task.output_sha256,
                    }
                    for task, output in zip(tasks, outputs, strict=True)
                ],
            }
        )

    def to_data(self) -> dict[str, Any]:
        """The object."""
        return asdict(self)


def state_name(state: "pb.ServerState.ValueType") -> str:
    """`STRANDED_IN_BOOTING`."""
    return server_view.state(state).upper()
