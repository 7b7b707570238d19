"""What came of runs and their tasks, for people and for exit codes."""

import asyncio
import base64
import sys
from collections.abc import Sequence
from typing import Any

import grpc.aio

from twinline.executor.v1 import runs_pb2 as pb
from twinline.executor.v1 import runs_pb2_grpc as rpc
from twinline_cli.errors import ExitCode
from twinline_cli.formats import Format
from twinline_cli.output import Column, emit, emit_lines, seconds_between, to_data, when, word
from twinline_cli.paging import every
from twinline_cli.terminal import DIM, colour, escape, state_colour, width

_READERS = 16
_INDENT = "    "

FAILURES = (
    ("failed", ExitCode.FAILED),
    ("timed_out", ExitCode.UNKNOWN),
    ("unknown", ExitCode.UNKNOWN),
    ("canceled", ExitCode.CANCELED),
    ("unreachable", ExitCode.UNREACHABLE),
    ("refused", ExitCode.REFUSED),
)
"""Counts of tasks that did not succeed, and what each alone makes the exit code."""

MOST_NAMED = 3
"""Targets given one by one that a run is shown with."""
_WAITING = ("pending", "delivered", "running")


def task_state(task: pb.Task) -> str:
    """A task's state in one word."""
    return word(pb.Task.State, task.state)


def line(task: pb.Task) -> str:
    """`ssh` or `agent`."""
    return word(pb.Task.Line, task.line) if task.line else ""


def run_state(run: pb.Run) -> str:
    """A run's state in one word."""
    return word(pb.Run.State, run.state)


def what(run: pb.Run) -> str:
    """The script and its revision, or the command."""
    return f"{run.script} (revision {run.revision})" if run.script else run.command


def ending(task: pb.Task) -> str:
    """How a task's process ended: `exit 3`, `signal 9`, or nothing when none ran to an end."""
    if task.signal:
        return f"signal {task.signal}"
    return f"exit {task.exit_status}" if task.HasField("exit_status") else ""


def why(task: pb.Task) -> str:
    """The reason of a state that does not say it all."""
    return f"{task.reason}: {task.message}" if task.reason and task.message else task.reason or task.message


def exit_code(counts: pb.TaskCounts) -> ExitCode:
    """0 when all succeeded; what the others have in common; 1 when they have nothing in common."""
    codes = {code for name, code in FAILURES if getattr(counts, name)}
    if not codes:
        return ExitCode.SUCCEEDED
    return codes.pop() if len(codes) == 1 else ExitCode.FAILED


def summary(counts: pb.TaskCounts) -> str:
    """`2 of 3 succeeded, 1 failed`."""
    others = [name for name, _ in FAILURES] + list(_WAITING)
    rest = [f"{getattr(counts, name)} {name.replace('_', ' ')}" for name in others if getattr(counts, name)]
    return ", ".join([f"{counts.succeeded} of {counts.total} succeeded", *rest])


def took(task: pb.Task) -> str:
    """How long a task ran, by the host's clock; nothing for one that never started."""
    if not (task.HasField("start_time") and task.HasField("end_time")):
        return ""
    return f"{seconds_between(task.start_time, task.end_time):.1f} s"


def where(run: pb.Run) -> str:
    """The selector of a run, or the first names of targets that were given one by one."""
    if run.selector or len(run.targets) <= MOST_NAMED:
        return run.selector or ", ".join(run.targets)
    return f"{', '.join(run.targets[:MOST_NAMED])} and {len(run.targets) - MOST_NAMED} more"


RUN_COLUMNS: list[Column[pb.Run]] = [
    Column("ID", lambda run: run.id),
    Column("STATE", run_state, is_state=True),
    Column("WHAT", what),
    Column("ON", where),
    Column("RESULT", lambda run: summary(run.counts)),
    Column("BY", lambda run: run.started_by),
    Column("STARTED", lambda run: when(run.create_time)),
]
TASK_COLUMNS: list[Column[pb.Task]] = [
    Column("TARGET", lambda task: task.target_name),
    Column("LINE", line),
    Column("STATE", task_state, is_state=True),
    Column("END", ending),
    Column("OUTPUT", lambda task: f"{task.output_size} B"),
    Column("TOOK", took),
    Column("WHY", why),
    Column("ID", lambda task: task.id),
]


async def tasks_of(channel: grpc.aio.Channel, run: str) -> list[pb.Task]:
    """All tasks of a run."""
    return await every(rpc.RunServiceStub(channel).ListTasks, pb.ListTasksRequest(run=run), "tasks")


async def read(channel: grpc.aio.Channel, task: pb.Task) -> bytes:
    """All that is stored of a task's output."""
    pieces = rpc.RunServiceStub(channel).ReadOutput(pb.ReadOutputRequest(task=task.id))
    return b"".join([piece.data async for piece in pieces])


async def with_outputs(channel: grpc.aio.Channel, tasks: Sequence[pb.Task]) -> list[dict[str, Any]]:
    """Tasks as data, each with its `output`; in `output_base64` instead when it is no text."""
    gate = asyncio.Semaphore(_READERS)

    async def one(task: pb.Task) -> dict[str, Any]:
        async with gate:
            output = await read(channel, task) if task.output_size else b""
        return {**to_data(task), **as_text(output)}

    return list(await asyncio.gather(*map(one, tasks)))


def as_text(output: bytes) -> dict[str, str]:
    """`output`, or `output_base64` when it is no UTF-8."""
    try:
        return {"output": output.decode()}
    except UnicodeDecodeError:
        return {"output_base64": base64.b64encode(output).decode("ascii")}


async def show(channel: grpc.aio.Channel, run: pb.Run, form: Format, *, outputs: bool = True) -> None:
    """Print a run that has ended: each target's result and output, then how many succeeded."""
    tasks = await tasks_of(channel, run.id)
    if form is Format.JSONL:
        emit_lines(await with_outputs(channel, tasks))
    elif form is not Format.TABLE:
        emit({"run": to_data(run), "tasks": await with_outputs(channel, tasks)}, form)
    else:
        room = max((width(task.target_name) for task in tasks), default=0)
        for task in tasks:
            sys.stdout.write(f"{headline(task, room)}\n")
            if outputs and task.output_size:
                await _print_output(channel, task)
        sys.stdout.write(f"{colour(f'{summary(run.counts)} · {run.id}', DIM)}\n")


def headline(task: pb.Task, room: int) -> str:
    """One target's result in a line."""
    state = task_state(task)
    name = escape(task.target_name)
    parts = [part for part in (ending(task), took(task), line(task), escape(why(task))) if part]
    return f"{name}{' ' * (room - width(name))}  {colour(state, state_colour(state))}  {' · '.join(parts)}"


async def _print_output(channel: grpc.aio.Channel, task: pb.Task) -> None:
    """A task's output below its headline: indented and made harmless on a terminal, as it is in a pipe."""
    if not sys.stdout.isatty():
        sys.stdout.flush()
        data = await read(channel, task)
        sys.stdout.buffer.write(data if data.endswith(b"\n") else data + b"\n")
        sys.stdout.buffer.flush()
        return
    for text in harmless(await read(channel, task)).splitlines():
        sys.stdout.write(f"{_INDENT}{text}\n")


def harmless(output: bytes) -> str:
    """A script's output for a terminal: line ends and tabs stay, all other control characters are written out."""
    return escape(output.decode(errors="backslashreplace").replace("\r\n", "\n"), keep="\n\t")
