"""What goes wrong on the command line: exit codes, and the one line a person reads."""

import os
import sys
import tempfile
import traceback
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from twinline_cli import home
from twinline_cli.terminal import one_line

if TYPE_CHECKING:
    from twinline_kit.errors import Error


class ExitCode(IntEnum):
    """How the command ended. The same numbers for every command."""

    SUCCEEDED = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNKNOWN = 4
    CANCELED = 5
    UNREACHABLE = 6
    INTERRUPTED = 130
    PIPE_CLOSED = 141


class CliError(Exception):
    """A failure that a person can do something about. The message says what, why, and what to do next."""

    def __init__(self, message: str, code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


BY_STATUS = {
    "INVALID_ARGUMENT": ExitCode.USAGE,
    "NOT_FOUND": ExitCode.USAGE,
    "ALREADY_EXISTS": ExitCode.REFUSED,
    "FAILED_PRECONDITION": ExitCode.REFUSED,
    "ABORTED": ExitCode.REFUSED,
    "PERMISSION_DENIED": ExitCode.REFUSED,
    "UNAUTHENTICATED": ExitCode.REFUSED,
    "RESOURCE_EXHAUSTED": ExitCode.REFUSED,
    "DEADLINE_EXCEEDED": ExitCode.UNKNOWN,
    "INTERNAL": ExitCode.UNKNOWN,
    "UNAVAILABLE": ExitCode.UNREACHABLE,
    "UNIMPLEMENTED": ExitCode.UNREACHABLE,
}
"""What the code of a service's answer makes the exit code."""


def report(error: BaseException) -> ExitCode:
    """Tell a person about `error` in one line on standard error, and how the process shall exit."""
    from twinline_kit.errors import Error

    if isinstance(error, BaseExceptionGroup):
        return report(error.exceptions[0])
    if isinstance(error, CliError):
        say(error.message)
        return error.code
    if isinstance(error, Error):
        say(in_words(error))
        return exit_code(error)
    if isinstance(error, OSError) and error.filename:
        say(f"{error.filename}: {(error.strerror or str(error)).lower()}; check the path and its permissions")
        return ExitCode.USAGE
    say(f"this is a bug in twinline ({type(error).__name__}); please report it with the details in {_keep(error)}")
    return ExitCode.UNKNOWN


def exit_code(error: "Error") -> ExitCode:
    """What a service's error makes of the command."""
    if _went_away(error):
        return ExitCode.UNKNOWN
    return BY_STATUS[error.code.name]


def in_words(error: "Error") -> str:
    """The message of a service's error, with the violations that it does not name itself."""
    if _went_away(error):
        return "the suite went away before it answered; look whether it was done when it is back"
    # A violation of the error's own reason is one that its message is about.
    others = [each for each in error.violations if each.reason != error.reason and each.message not in error.message]
    rest = [f"{each.reason}: {each.message}" for each in others]
    return "; ".join([error.message, *rest])


def _went_away(error: "Error") -> bool:
    """Whether the connection broke before an answer came. That none could be made is told where one is made."""
    return not error.is_ours and error.code.name == "UNAVAILABLE"


def say(message: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"twinline: {one_line(message)}\n")
    sys.stderr.flush()


def _keep(error: BaseException) -> Path:
    """Write the traceback where it can be found again."""
    text = "".join(traceback.format_exception(error))
    log = home.folder() / "logs" / "cli.log"
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        descriptor, name = tempfile.mkstemp(prefix="twinline-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        return Path(name)
    return log
