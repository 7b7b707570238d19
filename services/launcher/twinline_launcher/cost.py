"""What the cloud charges: the price of an hour, by the seconds it bills, and how many of them were spent stranded."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from twinline_launcher.models import Instance, Transition
from twinline_launcher.states import STRANDED

_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Cost:
    """Money in millionths of `currency`, rounded down."""

    currency: str
    hourly_micros: int
    billed: timedelta
    stranded: timedelta

    @property
    def micros(self) -> int:
        """For the whole billed time."""
        return self.hourly_micros * self.billed // _HOUR

    @property
    def stranded_micros(self) -> int:
        """For the part of it spent stranded."""
        return self.hourly_micros * self.stranded // _HOUR


def of(instance: Instance, history: Sequence[Transition], *, at: datetime) -> Cost:
    """The cost of a machine until now (`at`) or its end. `history`: at least its transitions about STRANDED."""
    begin, end = instance.run_time, instance.terminate_time or at
    if begin is None:
        return Cost(instance.currency, instance.hourly_micros, timedelta(), timedelta())
    stranded = timedelta()
    since: datetime | None = None
    for step in history:
        if since is not None:
            stranded += _overlap(since, step.time, begin, end)
        since = step.time if step.after in STRANDED else None
    if since is not None:
        stranded += _overlap(since, end, begin, end)
    return Cost(instance.currency, instance.hourly_micros, max(end - begin, timedelta()), stranded)


def _overlap(start: datetime, stop: datetime, begin: datetime, end: datetime) -> timedelta:
    return max(min(stop, end) - max(start, begin), timedelta())
