"""Who calls, and what they may: callers, grants, and the access tables that say who may call which method."""

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from twinline_kit.errors import PermissionDenied, Unauthenticated


class Grant(StrEnum):
    """What an access table can ask for, and what a caller can have."""

    ANYONE = "anyone"
    OBSERVER = "observer"
    ADMIN = "admin"
    AGENT = "agent"
    KEYS = "keys"
    LAUNCHER = "launcher"
    EXECUTOR = "executor"
    AGENT_GATEWAY = "agent_gateway"


class Kind(StrEnum):
    """What sort of caller."""

    ANONYMOUS = "anonymous"
    PERSON = "person"
    SERVICE = "service"
    AGENT = "agent"


@dataclass(frozen=True)
class Caller:
    """Whoever made an RPC. `name` is a person's name, a service's name or an agent's id. An admin observes too."""

    kind: Kind
    name: str
    grants: frozenset[Grant]

    def __post_init__(self) -> None:
        if Grant.ADMIN in self.grants:
            object.__setattr__(self, "grants", self.grants | {Grant.OBSERVER})

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.name else str(self.kind)


Access = Mapping[str, frozenset[Grant]]
"""Full method name (`/package.Service/Method`) -> who may call it. A method that is not in it is refused to all."""

ANONYMOUS = Caller(Kind.ANONYMOUS, "", frozenset())
"""A caller that showed nothing."""

_SERVICES = {str(grant): grant for grant in (Grant.KEYS, Grant.LAUNCHER, Grant.EXECUTOR, Grant.AGENT_GATEWAY)}

_caller: ContextVar[Caller] = ContextVar("twinline_caller")


class TokenVerifier(Protocol):
    """Finds the person a bearer token belongs to."""

    async def verify(self, token: str) -> Caller:
        """The caller whose token this is, else Unauthenticated."""
        ...


def caller() -> Caller:
    """Who made the RPC being served. Outside of one: LookupError."""
    return _caller.get()


def enter(who: Caller) -> None:
    """Make `who` the caller of this task and of the tasks it starts."""
    _caller.set(who)


def certified(kind: Kind, name: str) -> Caller:
    """The caller a certificate speaks for: an agent, or one of our services; of others only the name is known."""
    if kind is Kind.AGENT:
        return Caller(kind, name, frozenset({Grant.AGENT}))
    granted = _SERVICES.get(name) if kind is Kind.SERVICE else None
    return Caller(kind, name, frozenset({granted} if granted else ()))


def merge(tables: Iterable[Access]) -> dict[str, frozenset[Grant]]:
    """One table of several. A method that is in two of them is a ValueError."""
    merged: dict[str, frozenset[Grant]] = {}
    for table in tables:
        if twice := merged.keys() & table.keys():
            raise ValueError(f"more than one access table names {', '.join(sorted(twice))}")
        merged.update(table)
    return merged


def is_open(allowed: frozenset[Grant]) -> bool:
    """Whether those who show nothing may call."""
    return Grant.ANYONE in allowed


def require(who: Caller, allowed: frozenset[Grant], method: str) -> None:
    """Return when `who` may call `method`; else Unauthenticated (showed nothing) or PermissionDenied (may not)."""
    if is_open(allowed) or who.grants & allowed:
        return
    if who.kind is Kind.ANONYMOUS:
        raise Unauthenticated(
            f"{method} needs an identity: send a bearer token, or call the mesh port with a certificate", method=method
        )
    raise PermissionDenied(
        f"{who} may not call {method}: ask an admin for the right to", caller=str(who), method=method
    )
