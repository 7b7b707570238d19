"""What callers may name things, and how they refer to them."""

import re

from twinline_kit.errors import InvalidArgument

# Stands unquoted in command lines and paths, as servers' names do.
KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
KEY_ID = re.compile(r"key-[a-z0-9]{16}")
CREDENTIAL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def key_name(name: str) -> str:
    """`name`, when a cloud key may have it: 1 to 128 letters, digits, dots, underscores or dashes, and no id."""
    if not KEY_NAME.fullmatch(name):
        raise InvalidArgument(
            "name of a key must be 1 to 128 letters, digits, dots, underscores or dashes", field="name"
        )
    if KEY_ID.fullmatch(name):
        raise InvalidArgument("name of a key looks like a key's id: choose another", field="name")
    return name


def key_reference(key: str) -> str:
    """`key`, when it can be the name or id of a cloud key."""
    if not KEY_NAME.fullmatch(key):
        raise InvalidArgument("key must be the name or id of a cloud key", field="key")
    return key


def credential_name(name: str) -> str:
    """`name`, when a credential may have it."""
    if not CREDENTIAL_NAME.fullmatch(name):
        raise InvalidArgument(
            "name of a credential must be 1 to 128 letters, digits, underscores, dashes or dots", field="name"
        )
    return name


def agent_id(agent: str) -> str:
    """`agent`, when an agent may have this id."""
    if not AGENT_ID.fullmatch(agent):
        raise InvalidArgument(
            "agent_id must be 1 to 128 letters, digits, dots, underscores or dashes", field="agent_id"
        )
    return agent
