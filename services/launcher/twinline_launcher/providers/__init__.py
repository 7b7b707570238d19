"""Clouds, behind one small Protocol. A machine is named by its token: asking for it twice makes it once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from twinline_kit.errors import Violation
from twinline_launcher.models import Generation


class Power(StrEnum):
    """A machine as its cloud sees it."""

    STARTING = "starting"
    RUNNING = "running"
    GONE = "gone"


@dataclass(frozen=True)
class InstanceType:
    """A size that a cloud sells; the price of one hour in millionths of the currency (ISO 4217)."""

    name: str
    hourly_micros: int
    currency: str = "USD"


@dataclass(frozen=True)
class LaunchSpec:
    """The machine wanted."""

    token: str
    """Chosen by the caller, unique to this machine: a repeat finds the machine and makes no other."""
    name: str
    generation: Generation
    image: str
    instance_type: str
    public_key: str
    """An OpenSSH public key line that may log in; empty: none is known."""
    security_groups: tuple[str, ...] = ()
    user_data: bytes = field(default=b"", repr=False)
    """Holds a secret, so it is kept where only the machine reads it."""


@dataclass(frozen=True)
class Machine:
    """What a cloud says of one machine. It bills from `run_time` to `end_time`."""

    id: str
    power: Power
    address: str = ""
    """host:port of its SSH server; empty where nothing can be dialled."""
    username: str = ""
    host_key: str = ""
    """As its console output shows it; an OpenSSH public key line."""
    run_time: datetime | None = None
    end_time: datetime | None = None


class Cloud(Protocol):
    """One cloud. Calls may be repeated at any time; what they cannot do now they raise, and are asked again.

    A launch that no repetition cures raises LaunchRefused.
    """

    @property
    def name(self) -> str:
        """What images call it."""
        ...

    @property
    def instance_types(self) -> Sequence[InstanceType]:
        """What it sells, the smallest first."""
        ...

    async def obstacles(self, generation: Generation) -> Sequence[Violation]:
        """What would make any launch of this generation fail, as far as it can be told without one."""
        ...

    async def launch(self, spec: LaunchSpec) -> Machine:
        """Make the machine, or find the one that an earlier call with this token made."""
        ...

    async def describe(self, tokens: Collection[str]) -> Mapping[str, Machine]:
        """The machines as they are now, by token, in as few calls as can be; without those that were never launched.

        A machine of which nothing can be told now is never left out: the call fails instead. It raises
        RecordUnreadable where that is so of single machines, and each of the others can be told by a call of its own.
        """
        ...

    async def terminate(self, token: str) -> Machine:
        """End the machine for good. A launch with this token that comes later makes nothing."""
        ...

    async def apply_group(self, group: str, open_ports: Sequence[int]) -> None:
        """Bring a security group to these inbound TCP ports, on running machines as well."""
        ...


Clouds = Mapping[str, Cloud]
"""By name."""


def instance_type(cloud: Cloud, name: str) -> InstanceType | None:
    """The type of that name, the smallest for an empty one; None when the cloud does not sell it."""
    if not name:
        return cloud.instance_types[0]
    return next((each for each in cloud.instance_types if each.name == name), None)
