"""One line that changes while something goes on: on a terminal only."""

import sys
from shutil import get_terminal_size
from types import TracebackType
from typing import Self, TextIO

from twinline_cli.terminal import DIM, colour, one_line

_CLEAR = "\r\x1b[K"


class Progress:
    """Shows what goes on in the last line of a terminal, and takes it away at the end. In a pipe it shows nothing."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._is_live = stream.isatty()

    def show(self, text: str) -> None:
        """Replace what is shown."""
        if self._is_live:
            room = get_terminal_size().columns - 1
            self._write(f"{_CLEAR}{colour(one_line(text)[:room], DIM, self._stream)}")

    def clear(self) -> None:
        """Take the line away, so that something else can be printed."""
        if self._is_live:
            self._write(_CLEAR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
