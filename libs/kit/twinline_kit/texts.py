"""What hosts, agents and callers say, before it is stored or shown."""

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.message import Message

from twinline_kit.errors import InvalidArgument

_NUL = "\0"


def printable(text: str) -> str:
    """`text` with a blank for each control character: databases take no NUL, and terminals obey the others."""
    return "".join(character if character.isprintable() else " " for character in text)


def refuse_nul(request: Message) -> None:
    """InvalidArgument when a text of `request`, at any depth, holds a NUL: PostgreSQL takes none, SQLite any."""
    if b"\0" not in request.SerializeToString():
        return  # nearly always: only then each field is looked at
    for field, text in _texts(request):
        if _NUL in text:
            raise InvalidArgument(f"{field} holds a NUL, which no text may: leave it out", field=field)


def _texts(message: Message, within: str = "") -> Iterator[tuple[str, str]]:
    """Each text of a message, keys and values of maps included, and the path of its field."""
    for field, value in message.ListFields():
        for each in _values(value, is_repeated=field.is_repeated):
            if isinstance(each, str):
                yield f"{within}{field.name}", each
            elif isinstance(each, Message):
                yield from _texts(each, f"{within}{field.name}.")


def _values(value: Any, *, is_repeated: bool) -> Iterable[Any]:
    if not is_repeated:
        return (value,)
    if hasattr(value, "items"):
        return (each for item in value.items() for each in item)
    return list(value)
