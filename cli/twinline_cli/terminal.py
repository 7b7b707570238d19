"""What may reach a terminal: text without control characters, and colours only where they are wanted."""

import os
import sys
import unicodedata
from typing import TextIO

GREEN, RED, YELLOW, BLUE, DIM, BOLD = "32", "31", "33", "36", "2", "1"


def escape(text: str, *, keep: str = "") -> str:
    r"""`text` with every control and invisible character, except those in `keep`, written out like `\x1b`."""
    if text.isprintable():
        return text
    return "".join(each if each in keep or _is_harmless(each) else _written_out(each) for each in text)


def one_line(text: str) -> str:
    """`text` on one line: runs of blanks and line ends become one blank, control characters are written out."""
    return escape(" ".join(text.split()))


def width(text: str) -> int:
    """How many columns a terminal takes for `text`."""
    if text.isascii():
        return len(text)
    return sum(_columns(each) for each in text)


def colour(text: str, code: str, stream: TextIO | None = None) -> str:
    """`text` in a colour when `stream` (standard output) is a terminal that shows colours."""
    return f"\x1b[{code}m{text}\x1b[0m" if code and has_colours(stream or sys.stdout) else text


def has_colours(stream: TextIO) -> bool:
    """Whether `stream` is a terminal and nobody asked for plain text."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def state_colour(state: str) -> str:
    """The colour of a state's name: green for good, red for bad, yellow for moving, none for the rest."""
    word = state.lower()
    if word in {"operational", "succeeded", "connected", "ok", "yes", "created"}:
        return GREEN
    if word.startswith("stranded") or word in {"failed", "error", "refused", "unreachable", "timed_out", "lost"}:
        return RED
    if word.endswith("ing") or word in {"unknown", "changed", "delivered", "never_enrolled"}:
        return YELLOW
    return ""


def _is_harmless(character: str) -> bool:
    return unicodedata.category(character)[0] not in "CZ" or character == " "


def _written_out(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
