"""`twinline scripts`: what runs on servers, and its revisions."""

import difflib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import grpc.aio
import typer

from twinline.executor.v1 import scripts_pb2 as pb
from twinline.executor.v1 import scripts_pb2_grpc as rpc
from twinline_cli.commands import command, noun
from twinline_cli.connection import connected
from twinline_cli.errors import CliError, ExitCode, exit_code, in_words, say
from twinline_cli.formats import Format
from twinline_cli.naming import suggesting
from twinline_cli.options import Output
from twinline_cli.output import Column, emit, show_list, show_one, to_data, when
from twinline_cli.paging import every
from twinline_cli.terminal import escape
from twinline_kit.errors import InvalidArgument, NotFound

app = noun("What runs on servers, and its revisions.")

Name = Annotated[str, typer.Argument(help="A script's name.")]
Revision = Annotated[int, typer.Option("--revision", min=0, help="Which revision; the newest when 0.")]

_NO_HEADER = "it has no header with a name of at most 255 printable characters; give one"

COLUMNS: list[Column[pb.Script]] = [
    Column("NAME", lambda script: script.name),
    Column("REVISION", lambda script: str(script.revision)),
    Column("INPUTS", lambda script: " ".join(each.name for each in script.inputs)),
    Column("DESCRIPTION", lambda script: script.description.strip().partition("\n")[0]),
    Column("CREATED", lambda script: when(script.create_time)),
]
DETAILS: list[Column[pb.Script]] = [
    *(column for column in COLUMNS if column.title != "INPUTS"),
    Column("DIGEST", lambda script: script.digest),
]
INPUT_COLUMNS: list[Column[pb.InputDeclaration]] = [
    Column("INPUT", lambda each: each.name),
    Column("REQUIRED", lambda each: "yes" if each.required else "no"),
    Column("DEFAULT", lambda each: each.default),
    Column("DESCRIPTION", lambda each: each.description),
]


@command(app, "push")
async def push(
    files: Annotated[list[Path], typer.Argument(help="Script files.")],
    name: Annotated[str, typer.Option(help="What to call it; the header's name when absent. For one file only.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Store scripts. A new revision is made only when the text has changed."""
    if name and len(files) > 1:
        raise CliError("--name is for one file; push several files without it")
    sources = [read_source(file) for file in files]
    pushed: list[pb.Script] = []
    unchanged: list[str] = []
    try:
        async with connected() as channel:
            stub = rpc.ScriptServiceStub(channel)
            for file, source in zip(files, sources, strict=True):
                linted = await stub.LintScript(pb.LintScriptRequest(source=source))
                before = await _newest(channel, name or linted.script.name)
                with placing(file, " with --name", is_named=bool(name)):
                    pushed.append(await stub.PushScript(pb.PushScriptRequest(name=name, source=source)))
                _warn(file, linted.findings)
                if before == pushed[-1].revision:
                    unchanged.append(pushed[-1].name)
    finally:
        # What was stored is told even when the next one is refused.
        if pushed and output is Format.TABLE:
            show_list(pushed, COLUMNS, output, empty="")
        elif pushed:
            emit([_without_source(script) for script in pushed], output)
        if unchanged:
            say(f"unchanged: {', '.join(unchanged)}")


@command(app, "list")
async def list_all(output: Output = Format.TABLE) -> None:
    """List the newest revision of each script."""
    async with connected() as channel:
        found = await every(rpc.ScriptServiceStub(channel).ListScripts, pb.ListScriptsRequest(), "scripts")
    show_list(found, COLUMNS, output, empty="no scripts yet; store one with `twinline scripts push FILE`")


@command(app, "show")
async def show(
    script: Name,
    revision: Revision = 0,
    source: Annotated[bool, typer.Option("--source", help="Print the text itself and nothing else.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show one revision of a script."""
    found = await _fetch(script, revision)
    if source:
        sys.stdout.buffer.write(found.source)
        return
    show_one(found, DETAILS, output)
    if output is Format.TABLE:
        if found.inputs:
            sys.stdout.write("\n")
            show_list(found.inputs, INPUT_COLUMNS, output, empty="")
        sys.stdout.write(f"\n{escape(found.source.decode(errors='replace'), keep=chr(10) + chr(9))}")


@command(app, "lint")
async def lint(file: Annotated[Path, typer.Argument(help="A script file.")], output: Output = Format.TABLE) -> ExitCode:
    """Read a script as `push` would, and say what is wrong with it. Exits with 2 when it would be refused."""
    async with connected() as channel:
        answer = await rpc.ScriptServiceStub(channel).LintScript(pb.LintScriptRequest(source=read_source(file)))
    is_refused = any(finding.error for finding in answer.findings)
    if not is_refused and not answer.script.name:
        answer.findings.add(line=1, message="no name: push it with --name, or give it a header")
    if output is not Format.TABLE:
        emit(to_data(answer), output)
    else:
        sys.stdout.writelines(f"{_in_a_line(file, finding)}\n" for finding in answer.findings)
        if not answer.findings:
            say(f"{file} is fine")
    return ExitCode.USAGE if is_refused else ExitCode.SUCCEEDED


@command(app, "diff")
async def diff(
    script: Name,
    file: Annotated[Path | None, typer.Argument(help="Compare with this file instead of an older revision.")] = None,
    revision: Revision = 0,
    other: Annotated[int, typer.Option("--with", min=0, help="The other revision; the one before when 0.")] = 0,
    output: Output = Format.TABLE,
) -> ExitCode:
    """Show how a script differs from a file, or from another of its revisions. Exits with 1 when it does."""
    here = await _fetch(script, revision)
    if file is not None:
        old, new = (f"{script} revision {here.revision}", here.source), (str(file), read_source(file))
    else:
        if not other and here.revision == 1:
            raise CliError(
                f"{script} has one revision only; compare it with a file: `twinline scripts diff {script} FILE`"
            )
        there = await _fetch(script, other or here.revision - 1)
        old, new = (
            (f"{script} revision {there.revision}", there.source),
            (f"{script} revision {here.revision}", here.source),
        )
    lines = [line.rstrip("\n") for line in difflib.unified_diff(_lines(old[1]), _lines(new[1]), old[0], new[0])]
    if output is Format.TABLE:
        sys.stdout.writelines(f"{escape(line, keep=chr(9))}\n" for line in lines)
    else:
        emit({"from": old[0], "to": new[0], "diff": lines}, output)
    return ExitCode.FAILED if lines else ExitCode.SUCCEEDED


async def _newest(channel: grpc.aio.Channel, name: str) -> int:
    """The newest revision of a script; 0 when there is none, or no name."""
    if not name:
        return 0
    try:
        return (await rpc.ScriptServiceStub(channel).GetScript(pb.GetScriptRequest(name=name))).revision
    except NotFound:
        return 0


def _warn(file: Path, findings: Iterable[pb.Finding]) -> None:
    for finding in findings:
        say(_in_a_line(file, finding))


def _in_a_line(file: Path, finding: pb.Finding) -> str:
    kind = "error" if finding.error else "warning"
    message = finding.message.removeprefix(f"line {finding.line}: ")
    return f"{escape(str(file))}:{finding.line}: {kind}: {escape(message)}"


async def names(channel: grpc.aio.Channel) -> Iterable[str]:
    """The names of all scripts."""
    found = await every(rpc.ScriptServiceStub(channel).ListScripts, pb.ListScriptsRequest(), "scripts")
    return [script.name for script in found]


def read_source(file: Path) -> bytes:
    """The bytes of a script file."""
    if file.is_dir():
        raise CliError(f"{file} is a folder; name script files")
    return file.read_bytes()


@contextmanager
def placing(file: Path, naming: str, *, is_named: bool) -> Iterator[None]:
    """Within the block, what the executor finds wrong with a script names its file, and the line if it has one.

    `naming` says how to give the script a name, and `is_named` whether it was given one so.
    """
    try:
        yield
    except InvalidArgument as error:
        line = error.metadata.get("line", "")
        place = f"{file}:{line}" if line else str(file)
        text = in_words(error).removeprefix(f"line {line}: ")
        if error.metadata.get("field") == "name":
            text = f"{text if is_named else _NO_HEADER}{naming}"
        raise CliError(f"{place}: {text}", exit_code(error)) from error


async def _fetch(script: str, revision: int) -> pb.Script:
    async with connected() as channel, suggesting(script, lambda: names(channel)):
        return await rpc.ScriptServiceStub(channel).GetScript(pb.GetScriptRequest(name=script, revision=revision))


def _without_source(script: pb.Script) -> dict[str, object]:
    data = to_data(script)
    data.pop("source", None)
    return data


def _lines(source: bytes) -> list[str]:
    return source.decode(errors="backslashreplace").splitlines(keepends=True)
