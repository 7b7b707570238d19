"""What the machine was given at its launch."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from twinline_agent.errors import Unusable

_AGENT_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_FIELDS = ("enroll_address", "connect_address", "authority", "token", "agent_id")


@dataclass(frozen=True)
class UserData:
    """Where to enrol, where to connect, whom to trust, and which agent this is."""

    enroll_address: str
    connect_address: str
    authority: str
    """PEM of the certificate authority."""
    token: str = field(repr=False)
    agent_id: str

    @classmethod
    def load(cls, path: Path) -> "UserData":
        """Read the JSON file at `path`. Raises Unusable when a field is missing, without showing any content."""
        try:
            given = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise Unusable(f"cannot read user-data {path}: {type(error).__name__}; give a JSON file") from None
        missing = [name for name in _FIELDS if not (isinstance(given, dict) and isinstance(given.get(name), str))]
        if missing:
            raise Unusable(f"user-data {path} has no text for {', '.join(missing)}: take it from a fresh enrolment")
        if not _AGENT_ID.fullmatch(given["agent_id"]):
            raise Unusable(f"user-data {path} has an agent_id that is none: take it from a fresh enrolment")
        return cls(**{name: given[name] for name in _FIELDS})
