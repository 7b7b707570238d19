"""The scripts of one list, as they were frozen at launch, and what became of each."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any


class StepState(StrEnum):
    """Where a step stands."""

    WAITING = "waiting"  # not its turn yet
    PENDING = "pending"  # its task is not at the machine yet
    DELIVERED = "delivered"
    RUNNING = "running"
    UNKNOWN = "unknown"  # its task is lost, and since a resume its end is waited for all the same
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # the list stopped here
    CANCELED = "canceled"  # its machine ended before it did


UNDER_WAY = frozenset({StepState.PENDING, StepState.DELIVERED, StepState.RUNNING, StepState.UNKNOWN})
"""Its run is asked for, and is not known to be over."""


@dataclass(frozen=True)
class Step:
    """One script at one revision. A step without a script only proves that the machine can be reached."""

    script: str
    revision: int
    inputs: tuple[str, ...] = ()
    """The names that the script declares: what it is given."""
    attempt: int = 0
    """Counted and stored before the run is asked for, so that a lost answer is asked for again and not anew."""
    run: str = ""
    given_up: bool = False
    """The list overran while this attempt was at work, and canceled it: a resume means another one, after its end."""
    state: StepState = StepState.WAITING
    reason: str = ""
    """What its task waits for, or why its end cannot be told; else empty."""

    @property
    def title(self) -> str:
        """What people call it."""
        return self.script or "connect"

    def dump(self) -> dict[str, Any]:
        """As it is stored."""
        return {**asdict(self), "inputs": list(self.inputs), "state": self.state.value}

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> "Step":
        """What `dump` made."""
        return cls(**{**stored, "inputs": tuple(stored["inputs"]), "state": StepState(stored["state"])})


def load(stored: Sequence[Mapping[str, Any]]) -> list[Step]:
    """A stored list."""
    return [Step.load(each) for each in stored]


def dump(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """A list as it is stored."""
    return [step.dump() for step in steps]


def with_step(steps: Sequence[Step], index: int, **changes: Any) -> list[Step]:
    """The list with one step changed. What its task waits for is said anew, or it waits for nothing."""
    now = {"reason": "", **changes}
    return [replace(step, **now) if place == index else step for place, step in enumerate(steps)]


def current(steps: Sequence[Step]) -> int | None:
    """The place of the first step that has not succeeded; None when all have."""
    return next((place for place, step in enumerate(steps) if step.state is not StepState.SUCCEEDED), None)
