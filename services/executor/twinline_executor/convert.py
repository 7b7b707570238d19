"""Rows to protos and back."""

from collections.abc import Mapping
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from twinline.common.v1 import common_pb2
from twinline.executor.v1 import runs_pb2, scripts_pb2, targets_pb2
from twinline_executor.headers import Finding, Header
from twinline_executor.inputs import Declaration
from twinline_executor.rows import Run, Script, Target, Task
from twinline_executor.states import State
from twinline_kit import times
from twinline_kit.times import timestamp

DEFAULT_PORT = 22
DEFAULT_USERNAME = "root"


def duration(seconds: float | None) -> Duration | None:
    """Seconds as a message; None stays None."""
    return None if seconds is None else times.duration(timedelta(seconds=seconds))


def run(row: Run, counts: Mapping[State, int]) -> runs_pb2.Run:
    """A run and its counts."""
    return runs_pb2.Run(
        id=row.id, script=row.script, revision=row.revision, command=row.command, selector=row.selector,
        state=runs_pb2.Run.State.ValueType(row.state), inputs=row.inputs, started_by=row.started_by,
        create_time=timestamp(row.create_time), end_time=timestamp(row.end_time), counts=task_counts(counts),
        timeout=duration(row.timeout), targets=row.targets,
    )  # fmt: skip


def task_counts(counts: Mapping[State, int]) -> runs_pb2.TaskCounts:
    """How many tasks are in each state."""
    named = {state.name.lower(): count for state, count in counts.items()}
    return runs_pb2.TaskCounts(total=sum(counts.values()), **named)


def task(row: Task) -> runs_pb2.Task:
    """A task."""
    return runs_pb2.Task(
        id=row.id, run=row.run_id, target=row.target_id, target_name=row.target_name,
        line=runs_pb2.Task.Line.ValueType(row.line), state=runs_pb2.Task.State.ValueType(row.state), reason=row.reason,
        message=row.message, exit_status=row.exit_status, signal=row.signal, output_size=row.output_size,
        output_truncated=row.output_truncated, output_sha256=row.output_sha256, settled=row.settled,
        create_time=timestamp(row.create_time), start_time=timestamp(row.start_time), end_time=timestamp(row.end_time),
    )  # fmt: skip


def script(row: Script) -> scripts_pb2.Script:
    """A revision of a script."""
    return scripts_pb2.Script(
        name=row.name, revision=row.revision, description=row.description,
        inputs=[_declaration(each) for each in row.inputs], source=row.source, digest=row.digest,
        create_time=timestamp(row.create_time),
    )  # fmt: skip


def read_script(header: Header, source: bytes, digest: str) -> scripts_pb2.Script:
    """A script that was read and not stored."""
    return scripts_pb2.Script(
        name=header.name, description=header.description, inputs=[_declaration(each) for each in header.inputs],
        source=source, digest=digest,
    )  # fmt: skip


def finding(found: Finding) -> scripts_pb2.Finding:
    """Something wrong or risky in a script."""
    return scripts_pb2.Finding(line=found.line, message=found.message, error=found.error)


def _declaration(declared: Declaration) -> scripts_pb2.InputDeclaration:
    return scripts_pb2.InputDeclaration(
        name=declared.name, category=declared.category, description=declared.description, required=declared.required,
        advanced=declared.advanced, default=declared.default, possible_values=declared.possible_values,
        detected=declared.detected,
    )  # fmt: skip


def target(row: Target) -> targets_pb2.Target:
    """A target."""
    message = targets_pb2.Target(
        id=row.id, name=row.name, generation=common_pb2.Generation.ValueType(row.generation),
        deployment=row.deployment, state=row.state, tags=row.tags, update_time=timestamp(row.update_time),
    )  # fmt: skip
    if row.generation == common_pb2.GENERATION_V5:
        message.agent.agent_id = row.agent_id
    else:
        message.ssh.CopyFrom(
            targets_pb2.SshLine(
                host=row.host, port=row.port, username=row.username, cloud_key=row.cloud_key, host_key=row.host_key,
                host_key_learned=row.host_key_learned,
            )
        )  # fmt: skip
    return message


def target_row(message: targets_pb2.Target) -> Target:
    """A target that is wanted, defaults filled in."""
    generation = message.generation or common_pb2.GENERATION_V4
    common = Target(
        id=message.id, name=message.name, generation=int(generation), deployment=message.deployment,
        state=message.state, tags=tuple(message.tags), agent_id=message.agent.agent_id,
    )  # fmt: skip
    if generation == common_pb2.GENERATION_V5:
        return common
    return Target(
        id=common.id, name=common.name, generation=common.generation, deployment=common.deployment,
        state=common.state, tags=common.tags, host=message.ssh.host, port=message.ssh.port or DEFAULT_PORT,
        username=message.ssh.username or DEFAULT_USERNAME, cloud_key=message.ssh.cloud_key,
        host_key=message.ssh.host_key,
    )  # fmt: skip
