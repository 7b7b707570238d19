"""Follows tasks in the journal and says what is new: their states, their output within a window, their ends.

One loop for all tasks. It is asked for the next reports only when the stream can take them, so a slow line holds back
the reading of journals and nothing piles up in memory.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline_agent.convert import tellable, to_report
from twinline_journal import Journal, Reason, State, Status

log = logging.getLogger(__name__)

CHUNK = 64 << 10
MESSAGE = 128 << 10
"""Bytes of one message, about: a gateway holds one of each agent while an executor is slow."""

WINDOW = 1 << 20
"""Bytes of one task's output that may be on their way without an acknowledgement."""

SETTLE = 0.1
"""Seconds in which a young task is expected to end, so that it is one report and not two."""

LOOKS = 10
"""How often output that a record promises is looked for, over a second or two, before it counts as lost."""

_FIRST_PAUSE, _LONGEST_PAUSE, _BROKEN_PAUSE = 0.02, 0.25, 5.0
_NEVER = float("inf")
_LIVE = frozenset({State.ACCEPTED, State.RUNNING})


@dataclass(eq=False, slots=True)
class _Followed:
    """How far one task has been told. Changed by the event loop alone."""

    task_id: str
    sent: int
    acknowledged: int
    since: float = field(default_factory=time.monotonic)
    due: float = 0.0
    pause: float = _FIRST_PAUSE
    missed: int = 0
    told: State | None = None

    @property
    def room(self) -> int:
        return self.acknowledged + WINDOW - self.sent


@dataclass(frozen=True, slots=True)
class _Look:
    """What to read of one task."""

    followed: _Followed
    offset: int
    room: int
    young: bool


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was read of it; no status: it could not be read."""

    followed: _Followed
    status: Status | None = None
    chunks: Sequence[bytes] = ()
    short: bool = False
    """Whether there is less output than the status promises."""


class Watcher:
    """What this agent has to report. All methods belong to the event loop; files are read in a thread of its own."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._thread = ThreadPoolExecutor(1, "watcher")
        self._followed: dict[str, _Followed] = {}
        self._sayings: dict[str, pb.TaskReport] = {}
        self._wake = asyncio.Event()

    def follow(self, task_id: str, offset: int) -> None:
        """Report the state of a task, and its output from byte `offset` on; what was told before is told again."""
        self._sayings.pop(task_id, None)
        self._followed[task_id] = _Followed(task_id, sent=offset, acknowledged=offset)
        self._wake.set()

    def acknowledge(self, task_id: str, offset: int) -> None:
        """Output below `offset` is stored: more may be sent."""
        if (followed := self._followed.get(task_id)) and offset > followed.acknowledged:
            followed.acknowledged = offset
            if followed.due == _NEVER and followed.told in _LIVE:
                followed.due = 0.0
                self._wake.set()

    def leave(self, task_id: str) -> None:
        """Report no more of a task."""
        self._followed.pop(task_id, None)

    def say(self, report: pb.TaskReport) -> None:
        """Send `report` about a task that is not followed."""
        self._followed.pop(report.task_id, None)
        self._sayings[report.task_id] = report
        self._wake.set()

    def leave_all(self) -> None:
        """Start afresh with a new stream, whose orders say again what is wanted."""
        self._followed.clear()
        self._sayings.clear()

    async def next_reports(self, patience: float) -> list[pb.TaskReport]:
        """At least one report, about MESSAGE bytes at most; none when nothing is to say for `patience` seconds."""
        until = time.monotonic() + patience
        while True:
            self._wake.clear()
            if reports := [*self._take_sayings(), *await self._look()]:
                return reports
            now = time.monotonic()
            if now >= until:
                return []
            next_look = min((each.due for each in self._followed.values()), default=_NEVER)
            try:
                async with asyncio.timeout(max(0.0, min(next_look, until) - now)):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _take_sayings(self) -> list[pb.TaskReport]:
        taken = list(self._sayings.values())[:500]
        for report in taken:
            del self._sayings[report.task_id]
        return taken

    async def _look(self) -> list[pb.TaskReport]:
        now = time.monotonic()
        due = sorted((each for each in self._followed.values() if each.due <= now), key=lambda each: each.due)
        if not due:
            return []
        looks = [_Look(each, each.sent, each.room, now - each.since < SETTLE) for each in due]
        seen = await asyncio.get_running_loop().run_in_executor(self._thread, self._read, looks)
        # What was asked for meanwhile starts afresh: what was seen for it before does not count.
        return [
            report
            for each in seen
            if self._followed.get(each.followed.task_id) is each.followed
            for report in self._take_in(each)
        ]

    def _take_in(self, seen: _Seen) -> list[pb.TaskReport]:
        followed, status = seen.followed, seen.status
        now = time.monotonic()
        if status is None:
            followed.due = now + _BROKEN_PAUSE
            return []
        live = status.state in _LIVE
        if seen.short and not seen.chunks and not live:
            return self._miss(followed, status, now)
        if live and not seen.chunks and (followed.told is status.state or now - followed.since < SETTLE):
            self._wait(followed, now)
            return []
        reports = _reports(status, followed.sent, seen.chunks)
        followed.sent += sum(map(len, seen.chunks))
        followed.told, followed.missed = status.state, 0
        if not live and followed.sent < status.output_size:
            followed.told = State.RUNNING  # the end is told with the last byte
            followed.due = now if followed.room > 0 else _NEVER
        elif not live:
            followed.due = _NEVER
        else:
            followed.pause = _FIRST_PAUSE
            self._wait(followed, now)
        if status.state is State.ABSENT:
            self.leave(followed.task_id)
        return reports

    def _miss(self, followed: _Followed, status: Status, now: float) -> list[pb.TaskReport]:
        """An ended task has less output than promised: look again for a while, then say once that it is lost."""
        followed.missed += 1
        if followed.missed < LOOKS:
            self._wait(followed, now)
            return []
        found = followed.sent
        log.warning(
            "output is missing", extra={"task": followed.task_id, "promised": status.output_size, "found": found}
        )
        followed.told, followed.due = State.INTERRUPTED, _NEVER
        reason = Reason.JOURNAL_UNREADABLE
        lost = Status(status.task_id, State.INTERRUPTED, reason, output_size=found, started=status.started)
        return _reports(lost, found, ())

    def _wait(self, followed: _Followed, now: float) -> None:
        followed.due = now + followed.pause
        followed.pause = min(followed.pause * 1.5, _LONGEST_PAUSE)

    def _read(self, looks: Sequence[_Look]) -> list[_Seen]:
        """Read what is due until a message is full; what was not reached stays due. Runs in the thread."""
        seen: list[_Seen] = []
        budget = MESSAGE
        for look in looks:
            if budget <= 0:
                break
            try:
                seen.append(self._read_one(look, budget))
            except Exception:
                # Whatever it is: one bad journal must not silence the others.
                log.exception("task unreadable", extra={"task": look.followed.task_id})
                seen.append(_Seen(look.followed))
            budget -= 256 + sum(map(len, seen[-1].chunks))
        return seen

    def _read_one(self, look: _Look, budget: int) -> _Seen:
        status = tellable(self._journal.status(look.followed.task_id))
        if look.young and status.state in _LIVE:
            return _Seen(look.followed, status)
        chunks: list[bytes] = []
        offset, end = look.offset, min(status.output_size, look.offset + min(look.room, max(budget, CHUNK)))
        while offset < end and (chunk := self._read_chunk(status.task_id, offset, min(CHUNK, end - offset))):
            chunks.append(chunk)
            offset += len(chunk)
        return _Seen(look.followed, status, chunks, short=offset < end)

    def _read_chunk(self, task_id: str, offset: int, limit: int) -> bytes:
        """A script can remove its output too, or put something else there: then there is none."""
        try:
            return self._journal.read(task_id, offset, limit)
        except (FileNotFoundError, ValueError):
            return b""


def _reports(status: Status, offset: int, chunks: Sequence[bytes]) -> list[pb.TaskReport]:
    """One report a chunk, at least one. Only the one that completes the output tells the end."""
    reports = []
    for chunk in chunks or (b"",):
        complete = offset + len(chunk) >= status.output_size
        if complete or status.state in _LIVE:
            report = to_report(status)
        else:
            report = pb.TaskReport(
                task_id=status.task_id, state=pb.TaskReport.STATE_RUNNING, output_size=status.output_size
            )
        report.offset, report.data = offset, chunk
        offset += len(chunk)
        reports.append(report)
    return reports
