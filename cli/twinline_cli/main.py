"""The command `twinline`: whatever happens in it, a person reads one line and the exit code says the rest."""

import os
import re
import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from twinline_cli import standard_streams
from twinline_cli.errors import ExitCode, report, say
from twinline_cli.nouns import Nouns

app = typer.Typer(cls=Nouns, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

_WORDS = [
    (re.compile(theirs), ours)
    for theirs, ours in (
        (r"Value error, ", ""),
        (r"Input should be a valid integer.*", "want a whole number"),
        (r"Input should be a valid number.*", "want a number"),
        (r"Input should be greater than or equal to (\S+)", r"want \1 or more"),
        (r"Input should be less than or equal to (\S+)", r"want \1 or less"),
        (r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", r"nothing is known to do with \1"),
    )
]
"""What the libraries that read the arguments say, and what a person reads instead."""


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"twinline {version('twinline-cli')}\n")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Launch servers from templates, hold the SSH keys to them, and run scripts on them.

    Start with `twinline demo`; then `twinline up`, and what it prints.
    """


def main() -> None:
    """Do what the arguments of this process say, and end it."""
    # Else the core of gRPC writes lines of its own to standard error, next to ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    standard_streams.open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a locale that lacks a character is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    standard_streams.install()
    sys.exit(_no_text(sys.argv[1:]) or run(sys.argv[1:]))


def _no_text(arguments: list[str]) -> int:
    """Refuse an argument that is no text: names, values and commands travel as UTF-8. 0 when all are text."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(argument).decode(errors="backslashreplace")
            say(f"the argument {shown} is no UTF-8 text; write it in UTF-8, and rename a file that is called so")
            return ExitCode.USAGE
    return ExitCode.SUCCEEDED


def run(arguments: list[str]) -> int:
    """Do what the arguments say; the exit code."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has enough.
        standard_streams.forget(sys.stdout.fileno())
        return ExitCode.PIPE_CLOSED
    except standard_streams.OutputUnwritable as error:
        return report(error)
    return code


def _run(arguments: list[str]) -> int:
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="twinline", standalone_mode=False)
    except typer.TyperException as error:
        return _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except SystemExit as end:  # what typer makes of a closed pipe
        if isinstance(end.__context__, BrokenPipeError):
            raise end.__context__ from None
        raise
    except Exception as error:  # noqa: BLE001 - the last resort: no traceback reaches a person
        return report(error)
    return code if isinstance(code, int) else ExitCode.SUCCEEDED


def _in_our_words(text: str) -> str:
    for theirs, ours in _WORDS:
        text = theirs.sub(ours, text)
    return text


def _usage(error: typer.TyperException) -> ExitCode:
    context = getattr(error, "ctx", None)
    text = _in_our_words(error.format_message().strip())
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{text}\n")
        return ExitCode.USAGE
    where = context.command_path if context is not None else "twinline"
    text = text.replace(". Did you mean", "; did you mean").rstrip(".?")
    say(f"{text[0].lower()}{text[1:]}; see `{where} --help`")
    return ExitCode.USAGE
