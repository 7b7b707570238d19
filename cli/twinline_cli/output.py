"""How results are printed: aligned columns for people, the proto's JSON mapping for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import yaml
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from twinline_cli.formats import Format
from twinline_cli.terminal import BOLD, colour, escape, state_colour, width

M = TypeVar("M")


@dataclass(frozen=True)
class Column(Generic[M]):
    """One column of a table, and the line of that name where one thing is shown alone."""

    title: str
    text: Callable[[M], str]
    is_state: bool = False


def to_data(message: Message) -> dict[str, Any]:
    """The proto's JSON mapping with snake_case names; fields without presence are always there."""
    data: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return data


def show_list(items: Sequence[Any], columns: Sequence[Column[Any]], form: Format, *, empty: str) -> None:
    """Print many things. `empty` is what a person reads when there is none."""
    if form is not Format.TABLE:
        emit([to_data(item) for item in items], form)
    elif items:
        write_table(columns, items)
    else:
        sys.stderr.write(f"{empty}\n")


def show_one(item: Any, columns: Sequence[Column[Any]], form: Format) -> None:
    """Print one thing: for people a line for each column that has something to say."""
    if form is not Format.TABLE:
        emit(to_data(item), form)
        return
    lines = [(column, column.text(item)) for column in columns]
    indent = max(width(column.title) for column, _ in lines) + 2
    for column, text in lines:
        if text:
            sys.stdout.write(f"{_padded(column.title.lower(), indent)}{_cell(column, text)}\n")


def show_deleted(what: str, name: str, form: Format) -> None:
    """Say that a thing is gone."""
    if form is Format.TABLE:
        sys.stderr.write(f"deleted {what} {escape(name)}\n")
    else:
        emit({"deleted": name}, form)


def write_table(columns: Sequence[Column[Any]], items: Sequence[Any]) -> None:
    """Aligned columns under their titles."""
    cells = [[escape(column.text(item)) for column in columns] for item in items]
    widths = [
        max(width(text) for text in (column.title, *each))
        for column, each in zip(columns, zip(*cells, strict=True), strict=True)
    ]
    sys.stdout.write(f"{colour(_row([column.title for column in columns], widths, columns, plain=True), BOLD)}\n")
    for row in cells:
        sys.stdout.write(f"{_row(row, widths, columns)}\n")


def emit(data: Any, form: Format) -> None:
    """Print data for programs. A list is one line an item in jsonl."""
    if form is Format.YAML:
        yaml.safe_dump(data, sys.stdout, sort_keys=False, allow_unicode=not _at_terminal())
    elif form is Format.JSONL:
        emit_lines(data if isinstance(data, list) else [data])
    else:
        sys.stdout.write(f"{json.dumps(data, indent=2, ensure_ascii=_at_terminal())}\n")


def emit_each(items: Iterable[Any], form: Format) -> None:
    """What comes bit by bit, each item at once: a YAML document, or a line of JSON."""
    if form is not Format.YAML:
        emit_lines(items)
        return
    for item in items:
        yaml.safe_dump(item, sys.stdout, sort_keys=False, allow_unicode=not _at_terminal(), explicit_start=True)
        sys.stdout.flush()


def emit_lines(items: Iterable[Any]) -> None:
    """One line of JSON an item, at once: for what comes bit by bit."""
    for item in items:
        sys.stdout.write(f"{json.dumps(item, ensure_ascii=_at_terminal())}\n")
        sys.stdout.flush()


def _at_terminal() -> bool:
    """Whether what is printed can do something: a terminal obeys control characters that hosts put into texts."""
    return sys.stdout.isatty()


def when(time: Timestamp) -> str:
    """A time in UTC to the second; nothing for an absent one."""
    if not time.seconds:
        return ""
    return datetime.fromtimestamp(time.seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def seconds(duration: Duration) -> float:
    """A duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def seconds_between(start: Timestamp, end: Timestamp) -> float:
    """How many seconds lie between two times."""
    return end.seconds - start.seconds + (end.nanos - start.nanos) / 1e9


def word(enum: Any, value: int) -> str:
    """The name of an enum's value without what all of its names begin with: `stranded_in_booting`."""
    prefix = enum.Name(0).removesuffix("UNSPECIFIED")
    return str(enum.Name(value)).removeprefix(prefix).lower()


def yes_no(value: bool) -> str:
    """`yes` or `no`."""
    return "yes" if value else "no"


def _row(texts: Sequence[str], widths: Sequence[int], columns: Sequence[Column[Any]], *, plain: bool = False) -> str:
    parts = []
    for text, room, column in zip(texts, widths, columns, strict=True):
        painted = text if plain else _cell(column, text)
        parts.append(painted + " " * (room - width(text)))
    return "  ".join(parts).rstrip()


def _cell(column: Column[Any], text: str) -> str:
    safe = escape(text)
    return colour(safe, state_colour(safe)) if column.is_state else safe


def _padded(text: str, room: int) -> str:
    return text + " " * (room - width(text))
