"""What callers may name things, and how they refer to them."""

import re
from collections.abc import Iterable

from twinline_kit.errors import InvalidArgument

_NAME = re.compile(r"[!-~\u00a1-\U0010ffff](?:[ -~\u00a1-\U0010ffff]{0,253}[!-~\u00a1-\U0010ffff])?")
# Stands unquoted in selectors, host names and command lines.
_SERVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SERVER_ID = re.compile(r"server-[a-z0-9]{16}")
_TAG = re.compile(r"[!-~]{1,255}")


def name(text: str, field: str) -> str:
    """`text`, when an image, security group, template or deployment may have it as its name."""
    if not _NAME.fullmatch(text):
        raise InvalidArgument(f"{field} must be 1 to 255 printable characters, without spaces at its ends", field=field)
    return text


def optional(text: str, field: str) -> str:
    """`text`, when it is empty or a name."""
    return name(text, field) if text else ""


def server(text: str) -> str:
    """`text`, when a server may have it as its name."""
    if not _SERVER.fullmatch(text):
        raise InvalidArgument(
            "name of a server must be 1 to 128 letters, digits, dots, underscores or dashes", field="name"
        )
    if _SERVER_ID.fullmatch(text):
        raise InvalidArgument("name of a server looks like a server's id: choose another", field="name")
    return text


def server_reference(text: str) -> str:
    """`text`, when it can be the name or id of a server."""
    if not _SERVER.fullmatch(text):
        raise InvalidArgument("server must be the name or id of a server", field="server")
    return text


def key_reference(text: str, field: str) -> str:
    """`text`, when it is empty or can be the name or id of a cloud key; keys are named as servers are."""
    if text and not _SERVER.fullmatch(text):
        raise InvalidArgument(f"{field} must be the name or id of a cloud key", field=field)
    return text


def tags(given: Iterable[str]) -> list[str]:
    """`given`, sorted, when all can be tags."""
    wanted = sorted(set(given))
    if not all(_TAG.fullmatch(tag) for tag in wanted):
        raise InvalidArgument("a tag must be 1 to 255 printable ASCII characters without spaces", field="next.tags")
    return wanted
