"""`twinline runs`: what was run where, and what came of it."""

import sys
import uuid
from enum import StrEnum
from typing import Annotated

import grpc.aio
import typer

from twinline.executor.v1 import runs_pb2 as pb
from twinline.executor.v1 import runs_pb2_grpc as rpc
from twinline_cli import results
from twinline_cli.commands import command, noun
from twinline_cli.connection import connected
from twinline_cli.errors import CliError, ExitCode, say
from twinline_cli.formats import Format
from twinline_cli.naming import near
from twinline_cli.options import Output, ReachTimeout, parse_limit, to_duration
from twinline_cli.output import Column, emit, emit_lines, show_list, show_one, to_data, when, write_table
from twinline_cli.paging import every
from twinline_cli.run import start_and_wait
from twinline_cli.terminal import escape

app = noun("What was run where, and what came of it.")

RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id.")]

DETAILS: list[Column[pb.Run]] = [
    *results.RUN_COLUMNS,
    Column("ENDED", lambda run: when(run.end_time)),
    Column("INPUTS", lambda run: "  ".join(f"{name}={value}" for name, value in sorted(run.inputs.items()))),
]


class Only(StrEnum):
    """Which tasks a rerun takes."""

    FAILED = "failed"
    UNKNOWN = "unknown"


_TAKES = {
    Only.FAILED: {pb.Task.STATE_FAILED, pb.Task.STATE_TIMED_OUT, pb.Task.STATE_UNREACHABLE, pb.Task.STATE_REFUSED},
    Only.UNKNOWN: {pb.Task.STATE_UNKNOWN},
}


@command(app, "list")
async def list_all(
    limit: Annotated[int, typer.Option(min=1, help="How many at most, newest first.")] = 50,
    output: Output = Format.TABLE,
) -> None:
    """List runs, newest first."""
    async with connected() as channel:
        runs = await every(rpc.RunServiceStub(channel).ListRuns, pb.ListRunsRequest(), "runs", limit=limit)
    show_list(runs, results.RUN_COLUMNS, output, empty="no runs yet; start one with `twinline run`")


@command(app, "show")
async def show(run: RunId, output: Output = Format.TABLE) -> None:
    """Show a run and each of its tasks."""
    async with connected() as channel:
        found = await rpc.RunServiceStub(channel).GetRun(pb.GetRunRequest(run=run))
        tasks = await results.tasks_of(channel, run)
    if output is not Format.TABLE:
        emit({"run": to_data(found), "tasks": [to_data(task) for task in tasks]}, output)
        return
    show_one(found, DETAILS, output)
    sys.stdout.write("\n")
    write_table(results.TASK_COLUMNS, tasks)


@command(app, "output")
async def output_of(
    run: RunId,
    target: Annotated[str, typer.Option("--target", help="Only this server's, byte for byte.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Print what a run's script printed, byte for byte, of several servers each below its name.

    On a terminal, control characters are written out.
    """
    async with connected() as channel:
        tasks = await results.tasks_of(channel, run)
        if target:
            tasks = _of_target(tasks, target, run)
        if output is not Format.TABLE:
            data = await results.with_outputs(channel, tasks)
            emit_lines(data) if output is Format.JSONL else emit(data, output)
            return
        for task in tasks:
            if len(tasks) > 1:
                sys.stdout.write(f"==> {escape(task.target_name)} <==\n")
                sys.stdout.flush()
            if sys.stdout.isatty():
                await _show(channel, task)
            else:
                await _copy(channel, task, ends_line=len(tasks) > 1)


@command(app, "cancel")
async def cancel(run: RunId, output: Output = Format.TABLE) -> None:
    """Cancel what has not ended: waiting tasks never start, running ones get TERM, then KILL, on their hosts."""
    async with connected() as channel:
        stub = rpc.RunServiceStub(channel)
        before = await stub.GetRun(pb.GetRunRequest(run=run))
        after = await stub.CancelRun(pb.CancelRunRequest(run=run))
    show_one(after, DETAILS, output)
    if before.state != pb.Run.STATE_RUNNING or after.state in (pb.Run.STATE_SUCCEEDED, pb.Run.STATE_FAILED):
        say("it had ended before: nothing was canceled")
    else:
        say(f"asked for; see it with `twinline runs show {run}`")


@command(app, "rerun")
async def rerun(
    run: RunId,
    only: Annotated[Only, typer.Option("--only", help="Which tasks; both kinds need a look before they run again.")],
    timeout: Annotated[
        str, typer.Option(help="End it on its host after this long, such as 90s or 5m; else as before.")
    ] = "",
    reach_timeout: ReachTimeout = "",
    live: Annotated[bool, typer.Option("--follow", help="Print output as it comes.")] = False,
    output: Output = Format.TABLE,
) -> ExitCode:
    """Run the same again, with the same inputs, where it failed or where its end is unknown."""
    async with connected() as channel:
        before = await rpc.RunServiceStub(channel).GetRun(pb.GetRunRequest(run=run))
        targets = [task.target for task in await results.tasks_of(channel, run) if task.state in _TAKES[only]]
        if not targets:
            raise CliError(f"{run} has no {only} tasks; nothing was run", ExitCode.REFUSED)
        request = pb.StartRunRequest(request_id=str(uuid.uuid4()), targets=targets, inputs=before.inputs)
        if before.script:
            request.script, request.revision = before.script, before.revision
        else:
            request.command = before.command
        if timeout:
            request.timeout.CopyFrom(to_duration(parse_limit("--timeout", timeout)))
        elif before.HasField("timeout"):
            request.timeout.CopyFrom(before.timeout)
        if reach_timeout:
            request.reach_timeout.CopyFrom(to_duration(parse_limit("--reach-timeout", reach_timeout)))
        return await start_and_wait(channel, request, output, live=live)


def _of_target(tasks: list[pb.Task], target: str, run: str) -> list[pb.Task]:
    found = [task for task in tasks if target in (task.target_name, task.target, task.id)]
    if not found:
        raise CliError(f"{run} has no task on {target}{near(target, [task.target_name for task in tasks])}")
    return found


async def _show(channel: grpc.aio.Channel, task: pb.Task) -> None:
    """For a terminal: control characters are written out, and the last line is ended."""
    rest = b""
    async for piece in rpc.RunServiceStub(channel).ReadOutput(pb.ReadOutputRequest(task=task.id)):
        *lines, rest = (rest + piece.data).split(b"\n")
        sys.stdout.writelines(f"{results.harmless(line)}\n" for line in lines)
    if rest:
        sys.stdout.write(f"{results.harmless(rest)}\n")


async def _copy(channel: grpc.aio.Channel, task: pb.Task, *, ends_line: bool) -> None:
    last = b"\n"
    async for piece in rpc.RunServiceStub(channel).ReadOutput(pb.ReadOutputRequest(task=task.id)):
        sys.stdout.buffer.write(piece.data)
        last = piece.data[-1:] or last
    if ends_line and last != b"\n":
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()
