"""Rounds of the suite and of the bare transport in turn, and how they compare."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Cost:
    """What one round took: seconds by the clock, and processor seconds of whoever sends, and of the other side too."""

    seconds: float
    cpu: float
    far_cpu: float = 0.0


Round = Callable[[], Awaitable[Cost]]


@dataclass(frozen=True)
class Comparison:
    """Paired rounds of one measurement."""

    title: str
    hosts: int
    suite: list[Cost]
    bare: list[Cost]
    note: str = ""
    """Why no floor is asked of it; empty: the floor holds."""

    def wall(self) -> float:
        """Median of the suite's time over that of the bare transport, pair by pair: a round may hit a pause of ours."""
        return median(ours.seconds / theirs.seconds for ours, theirs in zip(self.suite, self.bare, strict=True))

    def cpu(self) -> float:
        """Processor time of the sending side in all rounds, over that of the bare transport: it adds up.

        From one and the same set of rounds this varies a third less than the median of the pairs.
        """
        return sum(ours.cpu for ours in self.suite) / sum(theirs.cpu for theirs in self.bare)

    def lines(self) -> list[str]:
        """A table of both sides and the ratios."""
        return [
            f"{self.title}",
            f"  {'':8} {'wall ms':>22} {'cpu ms':>22} {'us cpu/host':>12}",
            self._line("suite", self.suite),
            self._line("bare", self.bare),
            f"  ratio    wall {self.wall():.2f}   cpu {self.cpu():.2f}   {self.note}".rstrip(),
        ]

    def _line(self, name: str, costs: list[Cost]) -> str:
        cpu = median(cost.cpu for cost in costs)
        wall, spent = _spread([cost.seconds for cost in costs]), _spread([cost.cpu for cost in costs])
        return f"  {name:8} {wall:>22} {spent:>22} {cpu / self.hosts * 1e6:>12.0f}"


async def compare(
    title: str, hosts: int, *, suite: Round, bare: Round, rounds: int, warm_up: int = 1, note: str = ""
) -> Comparison:
    """Run both sides in turn `rounds` times, after `warm_up` turns that do not count."""
    ours: list[Cost] = []
    theirs: list[Cost] = []
    for number in range(warm_up + rounds):
        pair = (await bare(), await suite()) if number % 2 else tuple(reversed((await suite(), await bare())))
        if number >= warm_up:
            theirs.append(pair[0])
            ours.append(pair[1])
    return Comparison(title, hosts, ours, theirs, note)


def _spread(values: list[float]) -> str:
    """`median (least-most)` in milliseconds."""
    return f"{median(values) * 1000:.0f} ({min(values) * 1000:.0f}-{max(values) * 1000:.0f})"
