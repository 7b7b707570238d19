"""Standard streams that are closed, or fail: a full disk behind standard output is told as what it is."""

import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any

from twinline_cli.errors import CliError, ExitCode


class OutputUnwritable(CliError):
    """Standard output takes no more. What the command was to tell is not told, so its outcome is unknown."""


class _Output(FileIO):
    """The file behind standard output. After a failure, what follows goes nowhere."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            forget(self.fileno())
            why = (error.strerror or str(error)).lower()
            raise OutputUnwritable(f"standard output cannot be written: {why}", ExitCode.UNKNOWN) from error


def open_closed() -> None:
    """Let every standard stream that whoever started us closed lead nowhere: else the next file takes its place."""
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free is given, and all below it are open.
            nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(nowhere, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for good


def install() -> None:
    """Make `sys.stdout` raise OutputUnwritable. A closed pipe stays a BrokenPipeError."""
    old = sys.stdout
    if isinstance(old, TextIOWrapper):
        sys.stdout = TextIOWrapper(
            BufferedWriter(_Output(old.fileno(), "w", closefd=False)),
            encoding=old.encoding,
            errors=old.errors,
            line_buffering=old.line_buffering,
            write_through=old.write_through,
        )


def forget(descriptor: int) -> None:
    """Let everything that is still to be written go nowhere: Python would complain when it flushes at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
