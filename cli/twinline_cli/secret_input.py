"""Secrets that people type, pipe in or keep in files. Nothing typed is shown, and Ctrl-C ends the wait."""

import asyncio
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twinline_cli.errors import CliError

_LARGEST = 64 << 10
_FLAGS = 3  # where tcgetattr has them


def read_secret(file: Path | None, what: str, *, is_line: bool = False) -> bytes:
    """The content of `file`, or of standard input when it is None or `-`; never empty.

    On a terminal, `is_line` ends it with its first line.
    """
    with _interruptible():
        if file is not None and str(file) != "-":
            with file.open("rb") as opened:
                content = opened.read(_LARGEST + 1)
        elif sys.stdin.isatty():
            content = _typed(what, is_line=is_line)
        else:
            content = sys.stdin.buffer.read(_LARGEST + 1)
    if not content.strip():
        raise CliError(f"{what} is empty; give it on standard input or as a file")
    if len(content) > _LARGEST:
        raise CliError(f"{what} is larger than 64 KiB; give a smaller one")
    return content


def _typed(what: str, *, is_line: bool) -> bytes:
    end = "then Enter" if is_line else "then Ctrl-D on a line of its own"
    with _unseen():
        sys.stderr.write(f"type {what} (it is not shown), {end}:\n")
        sys.stderr.flush()
        return sys.stdin.buffer.readline(_LARGEST + 1) if is_line else sys.stdin.buffer.read(_LARGEST + 1)


@contextmanager
def _unseen() -> Iterator[None]:
    """The terminal shows nothing of what is typed within the block."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    silent = termios.tcgetattr(terminal)
    silent[_FLAGS] &= ~termios.ECHO
    try:
        termios.tcsetattr(terminal, termios.TCSADRAIN, silent)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends what blocks within the block. The event loop's own handler would wait until the read is over."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in the background, which Ctrl-C is not for
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # it came already, and the loop waits to tell us
            raise KeyboardInterrupt
        yield
    finally:
        signal.signal(signal.SIGINT, before)
