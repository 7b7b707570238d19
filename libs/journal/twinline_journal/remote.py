"""Command strings for SSH exec requests. They carry the runner, so the host needs nothing installed."""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from twinline_journal.spec import check_task_id, escape

# One line, no quote, backslash or "!": the login shell may be sh, bash, dash, zsh, tcsh or fish.
# $0 is the runner's name, $1 its text.
_BOOT = (
    "r=${TWINLINE_JOURNAL:-$HOME/.twinline/journal};f=$r/$0;"
    '[ -s "$f" ]||(umask 077;mkdir -p "$r"&&printf %b "$1">"$f.$$"&&mv -f "$f.$$" "$f")||exit 1;'
    'shift;TWINLINE_RUNNER=$f;. "$f"'
)

_PARTS = ("lead", "supervise", "start", "keep")


def run_command(task_id: str, offset: int = 0, *, marker: str = "") -> str:
    """Start the task framed on stdin, or find it, and follow it from byte `offset`.

    Stdout is the raw output from there until the task ends, stderr has status lines: one at once, one
    when the script starts, one each 5 s, and the final one after the last byte of output. With `marker` (of
    [A-Za-z0-9-]) stdout begins with that word, so what a login shell says first can be told from output.
    """
    return _command("run", task_id, str(offset), *_marker(marker))


def follow_command(task_id: str, offset: int, *, marker: str = "") -> str:
    """Follow a task as `run_command` does, and never start it."""
    return _command("follow", task_id, str(offset), *_marker(marker))


def cancel_command(task_id: str) -> str:
    """End the task, or see that it never starts. Answers with a status line on stderr."""
    return _command("cancel", task_id)


def withdraw_command(task_id: str) -> str:
    """See that the task never starts; one that has started is let alone. Answers with a status line on stderr."""
    return _command("withdraw", task_id)


def forget_command(task_ids: Sequence[str]) -> str:
    """Let the host drop these ended tasks when it likes. A status line on stderr tells each that has not ended."""
    return _command("forget", *task_ids)


def status_command(task_id: str) -> str:
    """Answers with a status line on stderr."""
    return _command("status", task_id)


def runner() -> bytes:
    """The runner's text."""
    return _runner()


def runner_name() -> str:
    """The runner's file name under a journal's root; another text has another name."""
    return f"runner-{hashlib.sha256(_runner()).hexdigest()[:16]}"


@cache
def _runner() -> bytes:
    folder = files("twinline_journal") / "runner"
    parts = [(folder / f"{part}.sh").read_bytes() for part in _PARTS]
    lines = b"".join(parts).splitlines(keepends=True)
    return b"".join(line for line in lines if line.strip() and not line.lstrip().startswith(b"#"))  # it travels often


@cache
def _prefix() -> str:
    return f"exec sh -c '{_BOOT}' {runner_name()} '{escape(_runner()).decode()}'"


def _command(verb: str, *words: str) -> str:
    for task_id in words if verb == "forget" else words[:1]:
        check_task_id(task_id)
    return " ".join((_prefix(), verb, *words))


def _marker(marker: str) -> tuple[str, ...]:
    if marker and not (marker.isascii() and marker.replace("-", "").isalnum()):
        raise ValueError(f"marker {marker!r} is not of [A-Za-z0-9-]: choose another")
    return (marker,) if marker else ()
