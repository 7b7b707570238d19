"""Time as an argument, so that tests can pass their own."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Returns the present moment, timezone-aware, in UTC."""


def now() -> datetime:
    """The present moment in UTC; the Clock of everything but tests."""
    return datetime.now(UTC)
