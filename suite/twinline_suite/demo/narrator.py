"""What a person sees of the demo. Without a stream it tells nothing."""

import os
import time
from collections.abc import Sequence
from itertools import zip_longest
from shutil import get_terminal_size
from typing import TextIO

from twinline.launcher.v1 import servers_pb2 as pb
from twinline_cli.results import harmless
from twinline_cli.server_view import state
from twinline_cli.terminal import BOLD, DIM, GREEN, RED, colour, one_line, state_colour, width

_STATE_ROOM = 19
_NAME_ROOM = 9
_INDENT = "   "
_WIDEST = 99
_CAUSE_AT = len("  0.0 s") + 2 + _NAME_ROOM + 2 + _STATE_ROOM + 2


class Narrator:
    """Tells the story on `stream`, in aligned lines; in colours when it is a terminal."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._began = time.time()
        self._chapters = 0

    def title(self, text: str) -> None:
        """The first line."""
        self._write(self._colour(text, BOLD))

    def chapter(self, text: str) -> None:
        """A numbered heading."""
        self._chapters += 1
        self._write(f"\n{self._colour(f'{self._chapters}  {text}', BOLD)}")

    def say(self, text: str) -> None:
        """A line of explanation, broken at the terminal's width."""
        for line in _wrapped(text, self._room()):
            self._write(f"{_INDENT}{line}")

    def fact(self, name: str, text: str, *, code: str = "") -> None:
        """A name and what is so about it."""
        room = max(_NAME_ROOM, width(name))
        first, *rest = _wrapped(text, self._room() - room - 2) or [""]
        self._write(f"{_INDENT}{_padded(name, room)}  {self._colour(first, code)}")
        for line in rest:
            self._write(f"{_INDENT}{' ' * room}  {self._colour(line, code)}")

    def came_to(self, server: str, step: pb.Transition) -> None:
        """A server came to a state."""
        word = state(step.to)
        after = max(0.0, step.time.seconds + step.time.nanos / 1e9 - self._began)
        stamp = self._colour(f"{after:5.1f} s", DIM)
        painted = self._colour(word, state_colour(word)) + " " * max(0, _STATE_ROOM - width(word))
        head = f"{_INDENT}{stamp}  {_padded(server, _NAME_ROOM)}  {painted}  "
        first, *rest = _wrapped(step.cause, self._room() - _CAUSE_AT) or [""]
        self._write(f"{head}{self._colour(first, DIM)}".rstrip())
        for line in rest:
            self._write(f"{_INDENT}{' ' * _CAUSE_AT}{self._colour(line, DIM)}")

    def side_by_side(self, titles: Sequence[str], outputs: Sequence[bytes]) -> None:
        """Two outputs next to each other."""
        left, right = (harmless(output).splitlines() for output in outputs)
        column = max(width(line) for line in (*left, titles[0])) + 2
        self._write(f"{_INDENT}{self._colour(_padded(titles[0], column), BOLD)}│ {self._colour(titles[1], BOLD)}")
        for one, other in zip_longest(left, right, fillvalue=""):
            self._write(f"{_INDENT}{_padded(one, column)}│ {other}".rstrip())

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Aligned rows; the first one is the heading."""
        widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
        for number, row in enumerate(rows):
            line = "  ".join(_padded(cell, room) for cell, room in zip(row, widths, strict=True)).rstrip()
            self._write(f"{_INDENT}{self._colour(line, '' if number else BOLD)}")

    def verdict(self, text: str, *, good: bool) -> None:
        """Something that was so, or was not."""
        mark = self._colour("✓" if good else "✗", GREEN if good else RED)
        self._write(f"{_INDENT}{mark} {text}")

    def command(self, text: str) -> None:
        """A line to copy: it is never broken."""
        self._write(f"{_INDENT}{one_line(text)}")

    def space(self) -> None:
        """An empty line."""
        self._write("")

    def _colour(self, text: str, code: str) -> str:
        return colour(text, code, self._stream) if self._stream else text

    def _room(self) -> int:
        is_terminal = self._stream is not None and self._stream.isatty()
        columns = get_terminal_size().columns if is_terminal else int(os.environ.get("COLUMNS") or _WIDEST)
        return min(columns, _WIDEST) - len(_INDENT)

    def _write(self, line: str) -> None:
        if self._stream is not None:
            self._stream.write(f"{line}\n")
            self._stream.flush()


def _padded(text: str, room: int) -> str:
    return text + " " * (room - width(text))


def _wrapped(text: str, room: int) -> list[str]:
    lines: list[str] = []
    for word in one_line(text).split(" "):
        if lines and width(lines[-1]) + 1 + width(word) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
