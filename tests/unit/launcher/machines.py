"""Machines that were never launched."""

from datetime import UTC, datetime, timedelta
from typing import Any

from twinline_launcher.models import Instance, Transition
from twinline_launcher.states import State

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def minutes(count: float) -> datetime:
    """So many minutes past noon."""
    return NOON + timedelta(minutes=count)


def machine(**given: Any) -> Instance:
    """A v4 machine of server `web-1` that costs 3.60 an hour."""
    fields: dict[str, Any] = {
        "id": "instance-1", "server_id": "server-1", "server_name": "web-1",
        "state": State.PENDING, "state_time": NOON, "cause": "", "deployment": "", "tags": [],
        "cloud": "local", "cloud_image": "image", "generation": 4, "generation_assumed": False,
        "instance_type": "local-small", "hourly_micros": 3_600_000, "currency": "USD",
        "cloud_key": "key-1", "cloud_key_name": "found-key", "public_key": "", "security_groups": [], "inputs": [],
        "launch_time": NOON, "boot": [], "decommission": [],
    }  # fmt: skip
    return Instance(**fields | given)


def step(before: State, after: State, at: datetime) -> Transition:
    """One transition of it."""
    return Transition(
        server_id="server-1",
        number=1,
        instance_id="instance-1",
        before=before,
        after=after,
        event="",
        cause="",
        time=at,
    )
