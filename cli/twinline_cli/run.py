"""`twinline run`: a script or a command on the servers a selector picks."""

import asyncio
import re
import shlex
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

import grpc.aio
import typer
from typer.core import TyperCommand

from twinline.common.v1 import common_pb2
from twinline.executor.v1 import runs_pb2 as pb
from twinline.executor.v1 import runs_pb2_grpc as rpc
from twinline.executor.v1 import targets_pb2, targets_pb2_grpc
from twinline_cli import results, scripts
from twinline_cli.commands import command, noun
from twinline_cli.connection import connected
from twinline_cli.errors import CliError, ExitCode, exit_code, in_words, say
from twinline_cli.following import follow
from twinline_cli.formats import Format
from twinline_cli.naming import suggesting
from twinline_cli.options import Inputs, Output, ReachTimeout, parse_inputs, parse_limit, to_duration
from twinline_cli.output import Column, emit, show_list, to_data
from twinline_cli.paging import every
from twinline_cli.standard_streams import OutputUnwritable
from twinline_kit.errors import InvalidArgument, Unavailable

app = noun()

_BARE_NAME = re.compile(r"[\w.*-]+")

TARGET_COLUMNS: list[Column[targets_pb2.Target]] = [
    Column("TARGET", lambda target: target.name),
    Column("LINE", lambda target: target.WhichOneof("line") or ""),
    Column("GENERATION", lambda target: "v5" if target.generation == common_pb2.GENERATION_V5 else "v4"),
    Column("DEPLOYMENT", lambda target: target.deployment),
    Column("STATE", lambda target: target.state, is_state=True),
]


class _Run(TyperCommand):
    """Notices a command of several words that is not quoted, before its words are taken for something else."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        words = _words_of_command(args)
        if len(words) > 1:
            raise CliError(f"a command of several words is quoted: -c {shlex.quote(shlex.join(words))}")
        return super().parse_args(ctx, args)


@command(app, "run", cls=_Run, context_settings={"allow_extra_args": True})
async def run(
    context: typer.Context,
    script: Annotated[str | None, typer.Argument(help="A stored script.")] = None,
    text: Annotated[str | None, typer.Option("--command", "-c", help="Run this command instead of a script.")] = None,
    on: Annotated[
        str,
        typer.Option("--on", metavar="SELECTOR", help="Which servers, such as 'deployment:prod and generation:v4'."),
    ] = "",
    inputs: Inputs = None,
    timeout: Annotated[
        str, typer.Option(help="End it on its host after this long, such as 90s or 5m; at most 30 days.")
    ] = "",
    reach_timeout: ReachTimeout = "",
    revision: Annotated[int, typer.Option(min=0, help="The script's revision; the newest when 0.")] = 0,
    plan: Annotated[bool, typer.Option("--plan", help="Say where it would run, and run nothing.")] = False,
    live: Annotated[bool, typer.Option("--follow", help="Print output as it comes.")] = False,
    output: Output = Format.TABLE,
) -> ExitCode:
    """Run a script or a command, wait for the end, and print each server's result and output."""
    if context.args:
        raise CliError(_surplus(context.args, on))
    _check_usage(script, text, on, revision)
    request = pb.StartRunRequest(
        request_id=str(uuid.uuid4()), selector=on, revision=revision, inputs=parse_inputs(inputs)
    )
    if script is not None:
        request.script = script
    else:
        request.command = text or ""
    if timeout:
        request.timeout.CopyFrom(to_duration(parse_limit("--timeout", timeout)))
    if reach_timeout:
        request.reach_timeout.CopyFrom(to_duration(parse_limit("--reach-timeout", reach_timeout)))
    async with connected() as channel, _finding(channel, script or ""), _selecting(on):
        if plan:
            return await show_plan(channel, request, output)
        return await start_and_wait(channel, request, output, live=live)


def _words_of_command(arguments: Sequence[str]) -> list[str]:
    """What stands behind -c, up to the next of our own options."""
    at = next((index for index, each in enumerate(arguments) if each in ("-c", "--command")), len(arguments))
    command, others = arguments[at + 1 : at + 2], arguments[at + 2 :]
    return [*command, *takewhile(lambda each: not each.startswith(("--", "-o")), others)]


def _surplus(words: Sequence[str], on: str) -> str:
    """What to say of words behind the script's name: they may be meant as servers."""
    if on:
        return f"nothing is known to do with {' '.join(words)}; see `twinline run --help`"
    selector = " or ".join(f"name:{word}" for word in words)
    return f"say where with an option: --on {shlex.quote(selector)}"


def _check_usage(script: str | None, text: str | None, on: str, revision: int) -> None:
    if script is None and text is None:
        raise CliError("name a SCRIPT, or give a command with -c; see `twinline run --help`")
    if script is not None and text is not None:
        raise CliError("name a SCRIPT or give a command with -c, not both; see `twinline run --help`")
    if script is not None and "/" in script:
        raise CliError(f"{script} is a path, and run takes stored scripts; store it: `twinline scripts push {script}`")
    if text is not None and revision:
        raise CliError("--revision is for stored scripts; a command has none")
    if not on.strip():
        raise CliError("say where with --on SELECTOR, such as --on name:web-1 or --on 'deployment:prod'")


@asynccontextmanager
async def _finding(channel: grpc.aio.Channel, script: str) -> AsyncIterator[None]:
    """Within the block, a script that is not stored is told from a file, from a command and from a misspelt name."""
    async with suggesting(script, lambda: scripts.names(channel), hint=_meant(script)):
        yield


def _meant(script: str) -> str:
    """What else than a stored script the word may be, or nothing."""
    if Path(script).is_file():
        return f"; {script} is a file here: store it with `twinline scripts push {shlex.quote(script)}`"
    return f"; to run it as a command: -c {shlex.quote(script)}" if len(script.split()) > 1 else ""


@asynccontextmanager
async def _selecting(selector: str) -> AsyncIterator[None]:
    """Within the block, a selector that is a bare name is told from other mistakes."""
    try:
        yield
    except InvalidArgument as error:
        if error.reason == "SELECTOR_MALFORMED" and _BARE_NAME.fullmatch(selector):
            raise CliError(f"{in_words(error)}; did you mean name:{selector}?", exit_code(error)) from error
        raise


async def start_and_wait(
    channel: grpc.aio.Channel, request: pb.StartRunRequest, form: Format, *, live: bool = False
) -> ExitCode:
    """Start a run, show how it goes on, print what came of it. Ctrl-C leaves it running, and says so."""
    started = await rpc.RunServiceStub(channel).StartRun(request)
    live = live and form is Format.TABLE
    see, end = f"`twinline runs show {started.id}`", f"`twinline runs cancel {started.id}`"
    try:
        ended = await follow(channel, started.id, live=live)
        await results.show(channel, ended, form, outputs=not live)
        sys.stdout.flush()
    except asyncio.CancelledError:
        say(f"{started.id} goes on; see it with {see}, end it with {end}")
        raise
    except OutputUnwritable as error:
        raise CliError(f"{error.message}; see {started.id} with {see}", error.code) from error
    except Unavailable as error:
        raise CliError(f"the suite is away; {started.id} goes on; see it with {see}", ExitCode.UNKNOWN) from error
    return results.exit_code(ended.counts)


async def show_plan(channel: grpc.aio.Channel, request: pb.StartRunRequest, form: Format) -> ExitCode:
    """Print where a run would go. Refused as the run itself would be."""
    request.validate_only = True
    # An executor that does not know how to validate only refuses a run without an id, so nothing starts there either.
    request.ClearField("request_id")
    await rpc.RunServiceStub(channel).StartRun(request)
    targets = await every(
        targets_pb2_grpc.TargetServiceStub(channel).ListTargets,
        targets_pb2.ListTargetsRequest(selector=request.selector),
        "targets",
    )
    if form is not Format.TABLE:
        emit([to_data(target) for target in targets], form)
    else:
        show_list(targets, TARGET_COLUMNS, form, empty="")
        sys.stdout.write(f"would run on {len(targets)}; nothing was run\n")
    return ExitCode.SUCCEEDED
