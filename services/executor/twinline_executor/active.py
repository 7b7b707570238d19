"""Runs and tasks that this replica follows, in memory: what is known of each, and what follows from what is heard.

One object a task, lean, because a run may have ten thousand. Everything here is called from the event loop only and
waits for nothing; the recorder writes it down.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from opentelemetry.trace import Span

from twinline_executor import states
from twinline_executor.reasons import INTERRUPTIONS, TaskReason
from twinline_executor.rows import Run, Task
from twinline_executor.states import Event, Line, State
from twinline_journal import Masker, Reason
from twinline_kit.texts import printable

MAX_MESSAGE = 1000
_TOO_LATE = "the host did not take the task in before the time to reach hosts was over"
SURELY_KEPT = 6 * 86400.0
"""Seconds after which a host may have dropped a task's journal: it keeps them for a week."""

YEAR_3000 = 32503680000.0
"""Seconds since the epoch. Not every reader of a time knows what comes long after it."""

SHORT_AT_MOST = 3
"""Times in a row that the journal of an ended task may give less output than it promises, and no more than before."""

_ENDS = {Reason.TIMED_OUT: Event.TIME_OUT, Reason.CANCELED: Event.CANCEL}


class End(NamedTuple):
    """How a finished task ended on its host; times are the host's."""

    reason: Reason
    exit_status: int | None
    signal: int
    truncated: bool
    started: datetime | None
    ended: datetime | None


class Verdict(NamedTuple):
    """What becomes of a task that is not to start: the event, and reason and message with it."""

    event: Event
    reason: str = ""
    message: str = ""


class MaskEverything:
    """A Masker that knows no secret and so trusts no byte. Offsets stay exact."""

    def feed(self, data: bytes) -> bytes:
        """As many `*`."""
        return b"*" * len(data)

    def finish(self) -> bytes:
        """Nothing was held back."""
        return b""

    def held(self) -> int:
        """Nothing is held back."""
        return 0


@dataclass(slots=True, eq=False)
class ActiveRun:
    """A run with everything that its tasks share."""

    run: Run
    deadline: float
    """On the monotonic clock: a task that was not taken in by its host until then is not started any more."""
    tasks: dict[str, "ActiveTask"] = field(default_factory=dict)
    """Those that are not settled."""
    script: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[bytes] = field(default=(), repr=False)
    refusal: tuple[str, str] | None = None
    """Reason and message why nothing of it is delivered any more; what is on hosts is followed."""
    remark: str = ""
    """Said with the end of every task that has output."""
    waiting: int = 0
    """Tasks whose recorded state is one that the run waits for."""
    closed: bool = False
    """Whether the run's own row says that it has ended."""
    released: bool = False
    """Whether it is no longer followed by this object: nothing that it knows may be told any more."""

    def share_secrets(self, secrets: Sequence[bytes]) -> None:
        """Mask these in all output from now on."""
        self.secrets = secrets
        if secrets:
            for task in self.tasks.values():
                task.masker = Masker(secrets)

    def mask_everything(self, why: str) -> None:
        """Show nothing of the output from now on: a secret that may be in it is not known any more."""
        self.remark = why
        for task in self.tasks.values():
            task.masker = MaskEverything()

    def settled(self) -> bool:
        """Whether nothing is left to do."""
        return all(task.settled for task in self.tasks.values())

    def late(self) -> bool:
        """Whether the time to reach hosts is over."""
        return time.monotonic() > self.deadline

    def old(self) -> bool:
        """Whether hosts may have dropped journals of its tasks already."""
        return (datetime.now(UTC) - self.run.create_time).total_seconds() > SURELY_KEPT


class ActiveTask:
    """A task that is not settled."""

    __slots__ = (
        "accepted", "agent_id", "cancel", "chunks", "end_time", "exit_status", "hasher", "heard", "id", "line",
        "lost_since", "masker", "message", "offers", "pending_bytes", "reason", "recorded_state", "run", "settled",
        "short", "signal", "span", "start_time", "state", "stored", "target_id", "target_name", "truncated",
        "unclaimed", "verdict",
    )  # fmt: skip

    def __init__(self, row: Task, run: ActiveRun, *, adopted: bool) -> None:
        self.id = row.id
        self.run = run
        self.target_id = row.target_id
        self.target_name = row.target_name
        self.line: Line = row.line
        self.agent_id = row.agent_id
        self.state: State = row.state
        self.recorded_state: State = row.state
        self.settled = False
        self.reason = row.reason
        self.message = row.message
        self.exit_status = row.exit_status
        self.signal = row.signal
        self.truncated = row.output_truncated
        self.start_time = row.start_time
        self.end_time = row.end_time
        self.stored = row.output_size
        self.chunks: list[bytes] = []
        self.pending_bytes = 0
        self.masker: Masker | MaskEverything | None = None
        self.hasher: object | None = None
        # UNKNOWN too: it may have been in a journal, and then must never be said not to have started.
        self.accepted = row.state in (State.DELIVERED, State.RUNNING, State.UNKNOWN) or row.output_size > 0
        # Whoever followed it before may have sent it on its way: that it was not started cannot be known from here.
        self.offers = 1 if adopted else 0
        self.cancel = run.run.canceled
        self.verdict: Verdict | None = None
        """What becomes of it once its host's journal promises that it never starts; till then it is withdrawn there."""
        self.unclaimed = False
        """Whether its host's journal has it, and nobody there starts it: it may be delivered once more."""
        self.short = (0, 0)  # output was missing at this offset, so many times in a row
        self.lost_since: float | None = None
        self.heard = time.monotonic()
        self.span: Span | None = None

    @property
    def received(self) -> int:
        """Bytes of output that need not be sent again."""
        return self.stored + self.pending_bytes + (self.masker.held() if self.masker else 0)

    def startable(self) -> bool:
        """Whether a delivery may start it."""
        if self.cancel or self.verdict or self.run.refusal is not None:
            return False
        return self.unclaimed or not (self.accepted or self.run.late())

    def never_sent(self) -> bool:
        """Whether it was surely never sent to its host."""
        return not self.accepted and not self.offers

    def take(self, offset: int, data: bytes) -> bool:
        """Take in output that starts at `offset`, less what is known. False when something before it is missing."""
        known = self.received - offset
        if known < 0:
            return False
        fresh = data[known:]
        if fresh:
            self._release(self.masker.feed(fresh) if self.masker else fresh)
        return True

    def _release(self, data: bytes) -> None:
        if data:
            self.chunks.append(data)
            self.pending_bytes += len(data)

    def happen(self, event: Event, reason: str = "", message: str = "") -> None:
        """Move along the table."""
        self.state = states.after(self.state, event)
        self.reason = str(reason)
        self.message = self._shown(message)
        if event in states.SETTLING:
            if self.masker is not None:
                held = self.masker.finish()
                self._release(b"*" * len(held) if self._was_cut(event) else held)
            if self.run.remark and self.received:
                self.message = self._shown("; ".join(filter(None, (message, self.run.remark))))
            self.settled = True
            self.end_time = self.end_time or datetime.now(UTC)

    def _was_cut(self, event: Event) -> bool:
        """Whether the output may have gone on: then what it ends with, where a secret begins so, is taken for one."""
        return event not in (Event.SUCCEED, Event.FAIL) or self.truncated or bool(self.signal)

    def is_on_host(self, started: datetime | None, *, running: bool) -> None:
        """Its host's journal has it."""
        self.accepted = True
        self.lost_since = None
        self.start_time = self.start_time or started
        if running:
            self.unclaimed = False
        event = Event.START if running else Event.DELIVER
        if states.after(self.state, event) is not self.state or self.reason:
            self.happen(event)

    def end(self, end: End) -> None:
        """Its host's journal says how it ended, and all its output is here."""
        if end.reason is Reason.CANCELED and end.started is None and self.state is not State.RUNNING:
            self.happen(*(self.verdict or self._why_not(TaskReason.REACHED_TOO_LATE, _TOO_LATE)))
            return
        self.accepted = True
        # A host may say anything; what is no exit status must not spoil a batch of others.
        self.exit_status = None if end.exit_status is None else end.exit_status & 0xFF
        self.signal, self.truncated = end.signal & 0x7F, end.truncated
        self.start_time, self.end_time = end.started or self.start_time, end.ended
        self.happen(_ENDS.get(end.reason) or (Event.SUCCEED if end.exit_status == 0 else Event.FAIL))

    def interrupted(self, why: Reason | None) -> None:
        """Its host's journal will never know how it ended."""
        self.accepted = True
        self.happen(Event.INTERRUPT, *INTERRUPTIONS.get(why, INTERRUPTIONS[None]))

    def ended_short(self) -> None:
        """Its host's journal says that it ended, and gives less output than it promises: borne a few times only."""
        at, times = self.short
        self.short = (self.received, times + 1 if at == self.received else 1)
        if self.short[1] >= SHORT_AT_MOST:
            self.interrupted(Reason.JOURNAL_UNREADABLE)

    def absent(self) -> None:
        """Its host's journal does not have it. Nothing happens when it may still be delivered."""
        if self.accepted or (self.offers and self.run.old()):
            message = "the host has no journal of this task any more; it may have run"
            self.happen(Event.INTERRUPT, TaskReason.JOURNAL_LOST, message)
        elif not self.startable():
            self.give_up(TaskReason.REACHED_TOO_LATE, _TOO_LATE)

    def give_up(self, reason: str, message: str) -> None:
        """It is not to start any more: canceled, refused, or late. `reason` where nothing says yet why it is late."""
        self._not_start(self._why_not(reason, message))

    def _why_not(self, reason: str, message: str) -> "Verdict":
        if self.cancel:
            return Verdict(Event.CANCEL)
        if self.run.refusal is not None:
            return Verdict(Event.REFUSE, *self.run.refusal)
        if self.reason:
            return Verdict(Event.GIVE_UP, self.reason, self.message)
        return Verdict(Event.GIVE_UP, reason, message)

    def rejected(self, message: str) -> None:
        """Its host, or somebody on the way to it, could not take it in."""
        verdict = Verdict(Event.REFUSE, TaskReason.AGENT_REJECTED, message or "the agent could not take the task in")
        if self.accepted:
            self.unclaimed = False  # whether its host has it still is asked before it is delivered again
        elif not self.startable():
            # It was only asked about, or withdrawn: no room for that says nothing of what was sent before.
            self.out_of_reach(verdict.reason, verdict.message, unknown_after=math.inf)
        elif self.offers <= 1:
            self.happen(*verdict)
        else:
            self._not_start(verdict)

    def _not_start(self, verdict: "Verdict") -> None:
        """End it without a start: at once when it was never sent to its host, else when the host has promised it.

        That a host does not have it now proves nothing: what was sent may be on its way still. Withdrawn, its journal
        is what a late delivery finds, and so starts nothing.
        """
        if self.never_sent():
            self.happen(*verdict)
        elif self.verdict is None:
            self.verdict = verdict

    def out_of_reach(self, reason: str, message: str, *, unknown_after: float) -> bool:
        """Its host cannot be asked now. Says whether anything changed."""
        before = (self.state, self.reason, self.message)
        now = time.monotonic()
        self.lost_since = self.lost_since or now
        if not self.accepted and not self.run.late():
            if self.state is State.PENDING:
                self.reason, self.message = str(reason), self._shown(message)
        elif self.never_sent():
            self.happen(Event.GIVE_UP, reason, message)
        elif not self.accepted or now - self.lost_since > unknown_after:
            self.happen(Event.LOSE, reason, message)
        return before != (self.state, self.reason, self.message)

    def _shown(self, message: str) -> str:
        """For people: short, printable, and without the run's secrets, which a host may say in what it refuses."""
        if not message:
            return ""
        if self.run.secrets:
            masker = Masker(self.run.secrets)
            masked = masker.feed(message.encode("utf-8", "replace")) + masker.finish()
            message = masked.decode("utf-8", "replace")
        return printable(message[:MAX_MESSAGE])


def host_time(seconds: float | None) -> datetime | None:
    """A host's clock reading, seconds since the epoch, as a time; None when it makes no sense."""
    return datetime.fromtimestamp(seconds, UTC) if seconds and 0 < seconds < YEAR_3000 else None
