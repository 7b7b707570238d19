"""`twinline run`: a script or a command on the servers a selector picks."""

import asyncio
import sys
import uuid
from typing import Annotated

import grpc.aio
import typer

from twinline.common.v1 import common_pb2
from twinline.executor.v1 import runs_pb2 as pb
from twinline.executor.v1 import runs_pb2_grpc as rpc
from twinline.executor.v1 import targets_pb2, targets_pb2_grpc
from twinline_cli import results, scripts
from twinline_cli.commands import command, noun
from twinline_cli.connection import connected
from twinline_cli.errors import CliError, ExitCode, say
from twinline_cli.following import follow
from twinline_cli.formats import Format
from twinline_cli.naming import suggesting
from twinline_cli.options import Inputs, Output, parse_duration, parse_inputs, to_duration
from twinline_cli.output import Column, emit, show_list, to_data
from twinline_cli.paging import every

app = noun()

TARGET_COLUMNS: list[Column[targets_pb2.Target]] = [
    Column("TARGET", lambda target: target.name),
    Column("LINE", lambda target: target.WhichOneof("line") or ""),
    Column("GENERATION", lambda target: "v5" if target.generation == common_pb2.GENERATION_V5 else "v4"),
    Column("DEPLOYMENT", lambda target: target.deployment),
    Column("STATE", lambda target: target.state, is_state=True),
]


@command(app, "run")
async def run(
    script: Annotated[str | None, typer.Argument(help="A stored script.")] = None,
    text: Annotated[str | None, typer.Option("--command", "-c", help="Run this command instead of a script.")] = None,
    on: Annotated[
        str,
        typer.Option("--on", metavar="SELECTOR", help="Which servers, such as 'deployment:prod and generation:v4'."),
    ] = "",
    inputs: Inputs = None,
    timeout: Annotated[str, typer.Option(help="End it on its host after this long, such as 90s or 5m.")] = "",
    revision: Annotated[int, typer.Option(min=0, help="The script's revision; the newest when 0.")] = 0,
    plan: Annotated[bool, typer.Option("--plan", help="Say where it would run, and run nothing.")] = False,
    live: Annotated[bool, typer.Option("--follow", help="Print output as it comes.")] = False,
    output: Output = Format.TABLE,
) -> ExitCode:
    """Run a script or a command, wait for the end, and print each server's result and output."""
    if (script is None) == (text is None):
        raise CliError("name either a SCRIPT or a command with -c, not both; see `twinline run --help`")
    if not on.strip():
        raise CliError("say where with --on SELECTOR, such as --on name:web-1 or --on 'deployment:prod'")
    request = pb.StartRunRequest(
        request_id=str(uuid.uuid4()), selector=on, revision=revision, inputs=parse_inputs(inputs)
    )
    if script is not None:
        request.script = script
    else:
        request.command = text or ""
    if timeout:
        request.timeout.CopyFrom(to_duration(parse_duration(timeout)))
    async with connected() as channel, suggesting(script or "", lambda: scripts.names(channel)):
        if plan:
            return await _show_plan(channel, on, output)
        return await start_and_wait(channel, request, output, live=live)


async def start_and_wait(
    channel: grpc.aio.Channel, request: pb.StartRunRequest, form: Format, *, live: bool = False
) -> ExitCode:
    """Start a run, show how it goes on, print what came of it. Ctrl-C leaves it running, and says so."""
    started = await rpc.RunServiceStub(channel).StartRun(request)
    live = live and form is Format.TABLE
    try:
        ended = await follow(channel, started.id, live=live)
    except asyncio.CancelledError:
        see, end = f"`twinline runs show {started.id}`", f"`twinline runs cancel {started.id}`"
        say(f"{started.id} goes on; see it with {see}, end it with {end}")
        raise
    await results.show(channel, ended, form, outputs=not live)
    return results.exit_code(ended.counts)


async def _show_plan(channel: grpc.aio.Channel, selector: str, form: Format) -> ExitCode:
    stub = targets_pb2_grpc.TargetServiceStub(channel)
    targets = await every(stub.ListTargets, targets_pb2.ListTargetsRequest(selector=selector), "targets")
    if not targets:
        text = f"no target matches {selector}; `twinline servers list` shows what there is"
        raise CliError(text, ExitCode.REFUSED)
    if form is not Format.TABLE:
        emit([to_data(target) for target in targets], form)
    else:
        show_list(targets, TARGET_COLUMNS, form, empty="")
        sys.stdout.write(f"would run on {len(targets)}; nothing was run\n")
    return ExitCode.SUCCEEDED
