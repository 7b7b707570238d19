"""The scripts of one list, as they were frozen at launch, and what became of each."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """What became of a step."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    """Its machine ended before it did."""


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
    outcome: Outcome = Outcome.WAITING
    task_state: str = ""
    """Where its run's task stands while that does not run yet, as the executor says; else empty."""
    reason: str = ""
    """What the task waits for; else empty."""

    @property
    def title(self) -> str:
        """What people call it."""
        return self.script or "connect"

    def dump(self) -> dict[str, Any]:
        """As it is stored."""
        return {**asdict(self), "inputs": list(self.inputs), "outcome": self.outcome.value}

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> "Step":
        """What `dump` made."""
        return cls(**{**stored, "inputs": tuple(stored["inputs"]), "outcome": Outcome(stored["outcome"])})


def load(stored: Sequence[Mapping[str, Any]]) -> list[Step]:
    """A stored list."""
    return [Step.load(each) for each in stored]


def dump(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """A list as it is stored."""
    return [step.dump() for step in steps]


def with_step(steps: Sequence[Step], index: int, **changes: Any) -> list[Step]:
    """The list with one step changed. What its task waits for is said anew, or it waits for nothing."""
    now = {"task_state": "", "reason": "", **changes}
    return [replace(step, **now) if place == index else step for place, step in enumerate(steps)]


def current(steps: Sequence[Step]) -> int | None:
    """The place of the first step that has not succeeded; None when all have."""
    return next((place for place, step in enumerate(steps) if step.outcome is not Outcome.SUCCEEDED), None)
