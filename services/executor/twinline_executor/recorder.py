"""Writes down what becomes of tasks: one writer, one transaction for all that has come up meanwhile."""

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from twinline_executor.active import ActiveRun, ActiveTask
from twinline_executor.changes import Changes
from twinline_executor.reasons import TaskReason
from twinline_executor.rows import Result
from twinline_executor.states import ENDED, Event, RunState, State
from twinline_executor.store.output import OutputStore
from twinline_executor.store.results import ResultStore
from twinline_kit import telemetry
from twinline_kit.clock import Clock
from twinline_kit.loops import backoff

log = logging.getLogger(__name__)

_ENDED = telemetry.meter().create_counter("twinline.tasks.ended", "{task}", "Tasks that ended for good")

GATHER = 0.1
"""Seconds between two transactions while results keep coming: each costs the disk, and all else here, however few it
holds. The last result of a run waits for nothing, and nor does much output: its host may wait for it to be stored."""
MUCH_OUTPUT = 512 << 10
"""Bytes of one task. An agent sends at most twice as many before it hears that some are stored."""
BATCH_TASKS = 4096
BATCH_BYTES = 8 << 20
STOPPING = 5.0
"""Seconds that a replica which stops waits for its last transaction."""
SETTLE = 0.1
"""Seconds that a task's arrival on its host may wait to be stored: what comes next of a short one is its end."""
SETTLE_BYTES = 64 << 10
WAITING_BYTES = 32 << 20
"""Output in memory that is not stored yet; past it the lines stop reading."""


@dataclass(slots=True)
class _Draft:
    """A task's state at one moment, and its output up to then."""

    task: ActiveTask
    result: Result
    chunks: list[bytes]
    complete: bool = False


class Recorder:
    """Collects changes and stores them. `on_stored` hears of each task written, `on_lost` of each left to another.

    The former hears too whether what is written is the task's end: that may have come only while what was known before
    was being stored.
    """

    def __init__(
        self, results: ResultStore, output: OutputStore, changes: Changes, *, clock: Clock, max_output: int
    ) -> None:
        self._results = results
        self._output = output
        self._changes = changes
        self._clock = clock
        self._max_output = max_output
        self._dirty: dict[str, ActiveTask] = {}
        self._arriving: dict[str, ActiveTask] = {}
        self._runs_to_close: dict[str, ActiveRun] = {}
        self._ended: dict[ActiveRun, set[str]] = {}
        """By run, the dirty tasks that have ended."""
        self._bytes = 0
        self._work = asyncio.Event()
        self._hurry = asyncio.Event()
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._room.set()
        self._idle.set()
        self.on_stored: Callable[[ActiveTask, bool], None] = lambda task, settled: None
        self.on_lost: Callable[[ActiveTask], None] = lambda task: None

    def note(self, task: ActiveTask) -> None:
        """This task changed; store it with the next batch, or when it has just arrived on its host, soon."""
        if task.run.released:
            return
        if task.id not in self._dirty and _arrives(task):
            if not self._arriving:
                asyncio.get_running_loop().call_later(SETTLE, self._note_arrivals)
            self._arriving[task.id] = task
            return
        self._arriving.pop(task.id, None)
        self._dirty[task.id] = task
        if task.state in ENDED and task.recorded_state not in ENDED:
            self._ended.setdefault(task.run, set()).add(task.id)
            if self._would_complete(task.run):
                self._hurry.set()
        self._wake()

    def note_output(self, task: ActiveTask, offset: int, data: bytes) -> bool:
        """Take in output and store it with the next batch; false when something is missing before it."""
        before = (task.pending_bytes, task.settled)
        taken = self.take_in(task, offset, data)
        if before != (task.pending_bytes, task.settled):
            self.note(task)
        return taken

    def take_in(self, task: ActiveTask, offset: int, data: bytes) -> bool:
        """Take in output, for who notes the task afterwards; false when something is missing before it."""
        if task.run.released:
            return True
        if offset + len(data) > task.run.run.output_limit(self._max_output):
            message = "its host sends more output than it was told to keep: how it ended is not to be trusted"
            task.happen(Event.INTERRUPT, TaskReason.OUTPUT_OVERRAN, message)
            return True
        before = task.pending_bytes
        taken = task.take(offset, data)
        if task.pending_bytes > before:
            self._grow(task.pending_bytes - before)
            if task.pending_bytes >= MUCH_OUTPUT or self._bytes >= BATCH_BYTES:
                self._hurry.set()
        return taken

    def note_run(self, run: ActiveRun) -> None:
        """Bring this run's own row up to its tasks'."""
        self._runs_to_close[run.run.id] = run
        self._wake()

    def release(self, run: ActiveRun) -> None:
        """Forget what waits of a released run; what is being stored now is judged by `follows`."""
        for task in run.tasks.values():
            self._arriving.pop(task.id, None)
            self._dirty.pop(task.id, None)
            self._grow(-sum(map(len, task.chunks)))
            task.chunks = []

    async def room(self) -> None:
        """Wait until so much is stored that more output may be taken in."""
        await self._room.wait()

    async def settled(self, *, within: float) -> None:
        """Wait until all that was noted is stored, or so many seconds when more comes all the time."""
        self._note_arrivals()
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._idle.wait()

    async def run(self) -> None:
        """Store until cancelled; what is noted by then is stored still."""
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                while self._dirty or self._runs_to_close:
                    took_all = await self._flush()
                    if self._dirty and took_all:
                        await self._gather()
                self._idle.set()
        except asyncio.CancelledError:
            try:
                async with asyncio.timeout(STOPPING):
                    await self._store_rest()
            except Exception:
                log.exception("the last results could not be stored; hosts have them still")
            raise

    async def _gather(self) -> None:
        """Let more results come up, but none that completes a run wait for it."""
        if any(self._would_complete(run) for run in self._ended):
            return  # the last of it came while others were stored
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER):
                await self._hurry.wait()

    def _would_complete(self, run: ActiveRun) -> bool:
        return len(self._ended[run]) >= run.waiting

    def _note_arrivals(self) -> None:
        if self._arriving:
            self._dirty |= self._arriving
            self._arriving = {}
            self._wake()

    def _wake(self) -> None:
        self._idle.clear()
        self._work.set()

    def _grow(self, size: int) -> None:
        self._bytes = max(0, self._bytes + size)  # what a mask held back is given back without having been counted
        if self._bytes > WAITING_BYTES:
            self._room.clear()
        elif self._bytes <= WAITING_BYTES // 2:
            self._room.set()

    async def _flush(self) -> bool:
        """Store what there is now, or as much of it as one transaction takes; whether that was all."""
        drafts = self._take_batch()
        took_all = not self._dirty
        if drafts:
            work = asyncio.ensure_future(self._store(drafts))
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait({work}, timeout=STOPPING)  # in mid-transaction: its end should be known
                if not work.done():
                    work.cancel()
                    self._leave_out(drafts)
                raise
        await self._close_runs()
        return took_all

    def _leave_out(self, drafts: Sequence[_Draft]) -> None:
        """Nothing more of these tasks is stored: what came later does not follow what is. Hosts have it all still."""
        for draft in drafts:
            self._arriving.pop(draft.task.id, None)
            self._dirty.pop(draft.task.id, None)

    async def _store(self, drafts: Sequence[_Draft]) -> None:
        failures = 0
        while drafts := self._still_followed(drafts):
            try:
                lost = await asyncio.to_thread(self._record, drafts)
            except Exception:
                failures += 1
                log.exception("results could not be stored, will retry", extra={"tasks": len(drafts)})
                await asyncio.sleep(backoff(failures))
            else:
                self._after(drafts, lost)
                return

    def _still_followed(self, drafts: Sequence[_Draft]) -> list[_Draft]:
        """Less those whose runs were released meanwhile. What their rows say now may be of who followed them since."""
        for draft in drafts:
            if draft.task.run.released:
                self._grow(draft.result.expected_size - draft.result.output_size)
        return [draft for draft in drafts if not draft.task.run.released]

    def _take_batch(self) -> list[_Draft]:
        drafts: list[_Draft] = []
        size = 0
        self._ended.clear()
        self._hurry.clear()
        for task_id in list(self._dirty)[:BATCH_TASKS]:
            task = self._dirty.pop(task_id)
            drafts.append(_draft(task))
            size += drafts[-1].result.output_size - drafts[-1].result.expected_size
            if size > BATCH_BYTES:
                break
        return drafts

    def _complete(self, drafts: Sequence[_Draft]) -> None:
        """Join the output and take its digest along; once for each draft however often called."""
        for draft in drafts:
            if not draft.complete:
                self._add_output(draft)
                draft.complete = True

    def _add_output(self, draft: _Draft) -> None:
        result = draft.result
        result.data = b"".join(draft.chunks)
        if result.settled:
            result.output_sha256 = self._digest(draft.task, result)
        elif result.data and (draft.task.hasher is not None or result.expected_size == 0):
            draft.task.hasher = _updated(draft.task.hasher, result.data)

    def _digest(self, task: ActiveTask, result: Result) -> str:
        if task.hasher is None and result.expected_size:
            task.hasher = self._output.digest(task.id, result.expected_size)
        return _updated(task.hasher, result.data).hexdigest()

    def _record(self, drafts: Sequence[_Draft]) -> set[str]:
        """Write a batch, in a thread. Answer the ids that are left to another."""
        self._complete(drafts)
        runs = {draft.result.run_id: draft.task.run for draft in drafts}
        results = [draft.result for draft in drafts]
        return self._results.record(results, follows=lambda run_id: not runs[run_id].released)

    def _after(self, drafts: Sequence[_Draft], lost: set[str]) -> None:
        touched: dict[str, ActiveRun] = {}
        ended: Counter[tuple[str, str]] = Counter()
        self._grow(-sum(len(draft.result.data) for draft in drafts))
        for draft in drafts:
            task, result = draft.task, draft.result
            if result.task_id in lost:
                self.on_lost(task)
                continue
            task.stored = result.output_size
            task.pending_bytes -= len(result.data)
            touched[task.run.run.id] = task.run
            _count(task, result)
            if result.settled:
                ended[result.state.name, task.line.name] += 1
            self.on_stored(task, result.settled)
        for (state, line), count in ended.items():
            _ENDED.add(count, {"state": state, "line": line})
        self._changes.tell(touched)
        self._changes.tell(draft.task.id for draft in drafts)
        self._runs_to_close |= {
            run_id: run for run_id, run in touched.items() if (run.waiting == 0) != run.closed or not run.tasks
        }

    async def _close_runs(self) -> None:
        closing, self._runs_to_close = self._runs_to_close, {}
        for run_id, run in closing.items():
            try:
                state = await asyncio.to_thread(self._results.close_run, run_id, at=self._clock())
            except Exception:
                log.exception("a run could not be closed, will retry", extra={"run": run_id})
                self._runs_to_close.setdefault(run_id, run)
                await asyncio.sleep(backoff(1))
            else:
                run.closed = state is not RunState.RUNNING
        for run_id, run in closing.items():
            self._changes.tell([run_id], over=run.closed)

    async def _store_rest(self) -> None:
        """The last batch of a replica that stops. Tried once: a transaction may stand in the way that outlives us."""
        self._note_arrivals()
        while self._dirty:
            drafts = self._take_batch()
            self._after(drafts, await asyncio.to_thread(self._record, drafts))
        for run_id in self._runs_to_close:
            await asyncio.to_thread(self._results.close_run, run_id, at=self._clock())


def _arrives(task: ActiveTask) -> bool:
    """Whether all that is new about it is that its host has it, and a little output."""
    if task.settled or task.pending_bytes > SETTLE_BYTES:
        return False
    return task.recorded_state is State.PENDING and task.state in (State.DELIVERED, State.RUNNING)


def _draft(task: ActiveTask) -> _Draft:
    chunks, task.chunks = task.chunks, []
    size = sum(map(len, chunks))
    result = Result(
        task_id=task.id, run_id=task.run.run.id, expected_size=task.stored, state=task.state, settled=task.settled,
        reason=task.reason, message=task.message, exit_status=task.exit_status, signal=task.signal,
        output_size=task.stored + size, output_truncated=task.truncated, output_sha256="",
        start_time=task.start_time, end_time=task.end_time,
    )  # fmt: skip
    return _Draft(task, result, chunks)


def _updated(hasher: object | None, data: bytes) -> "hashlib._Hash":
    running = cast("hashlib._Hash", hasher) if hasher is not None else hashlib.sha256()
    running.update(data)
    return running


def _count(task: ActiveTask, result: Result) -> None:
    run = task.run
    run.waiting += (result.state not in ENDED) - (task.recorded_state not in ENDED)
    task.recorded_state = result.state
    if result.settled:
        run.tasks.pop(task.id, None)
        if task.span is not None:
            task.span.end()
