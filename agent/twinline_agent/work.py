"""Orders become journal entries: starts, cancels and forgets, a few at once, each on its own.

What is ordered of one task is done in the order in which it came: a task that is asked about while its start waits is
answered after that, or it would be said not to be here and then run. A cancel waits for nobody's start.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline_agent.convert import rejected, to_spec
from twinline_agent.watcher import Watcher
from twinline_journal import Journal, JournalError, State, TaskSpec, check_task_id

log = logging.getLogger(__name__)

STARTERS = 8
ERRANDS = 2
WAITING_TASKS = 4096
WAITING_BYTES = 64 << 20
"""Starts that may wait, and what they hold in memory; past either no more orders are read."""
WAITING_ERRANDS = 4096

_SWEEP_EVERY = 3600.0

Errand = Callable[[str], None]
"""Something short that is done to one task's journal."""
T = TypeVar("T")


@dataclass(slots=True)
class _Start:
    """A task whose start waits or is at work."""

    spec: TaskSpec
    offset: int
    """From where it is followed afterwards."""
    instead: Errand | None = None
    """What was ordered meanwhile: a cancel, or that it is withdrawn."""

    @property
    def size(self) -> int:
        return 256 + len(self.spec.script) + sum(len(name) + len(value) for name, value in self.spec.env.items())


class Work:
    """What this agent does. It goes on while there is no stream; the journal alone remembers."""

    def __init__(self, root: Path) -> None:
        self._journal = Journal(root)
        self._threads = ThreadPoolExecutor(STARTERS + ERRANDS, "work")
        self._starts: dict[str, _Start] = {}
        self._to_start: asyncio.Queue[str] = asyncio.Queue()
        self._bytes = 0
        self._freed = asyncio.Event()
        self._errands: asyncio.Queue[tuple[Errand, str, Callable[[], None]]] = asyncio.Queue(WAITING_ERRANDS)
        self.watcher = Watcher(self._journal)

    async def run(self) -> None:
        """Do what was ordered, and clean up, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(STARTERS):
                group.create_task(self._start_tasks())
            for _ in range(ERRANDS):
                group.create_task(self._run_errands())
            group.create_task(self._sweep())

    async def obey(self, orders: pb.Orders) -> None:
        """Take on what the gateway wants. A bad order is rejected and harms no other."""
        for delivery in orders.deliveries:
            await self._deliver(delivery)
        for task_id in orders.cancel:
            if start := self._starts.get(task_id):
                start.instead = self._journal.cancel
            await self._order(self._journal.cancel, task_id)
        for ack in orders.acks:
            self.watcher.acknowledge(ack.task_id, ack.offset)
            if ack.final:
                self.watcher.leave(ack.task_id)
                await self._order(self._journal.forget, ack.task_id)

    async def _deliver(self, delivery: pb.Delivery) -> None:
        task_id, offset = delivery.task_id, delivery.from_offset
        try:
            check_task_id(task_id)
            if offset < 0:
                raise ValueError(f"from_offset {offset} is negative: state it from 0")
            spec = to_spec(delivery) if delivery.HasField("work") else None
        except ValueError as error:
            self.watcher.say(rejected(task_id, str(error)))
            return
        start = self._starts.get(task_id)
        if start and delivery.withdraw:
            start.instead = start.instead or self._journal.withdraw
        if start:
            start.offset = offset
        elif spec:
            await self._room()
            self._starts[task_id] = start = _Start(spec, offset)
            self._bytes += start.size
            self._to_start.put_nowait(task_id)
        elif delivery.withdraw:
            await self._order(self._journal.withdraw, task_id, then=lambda: self.watcher.follow(task_id, offset))
        else:
            self.watcher.follow(task_id, offset)

    async def _order(self, errand: Errand, task_id: str, *, then: Callable[[], None] = lambda: None) -> None:
        await self._errands.put((errand, task_id, then))

    async def _room(self) -> None:
        while len(self._starts) >= WAITING_TASKS or self._bytes >= WAITING_BYTES:
            self._freed.clear()
            await self._freed.wait()

    async def _start_tasks(self) -> None:
        while True:
            task_id = await self._to_start.get()
            start = self._starts[task_id]
            try:
                await self._in_thread(lambda start=start: self._start(start))  # type: ignore[misc]
            except Exception as error:
                # Whatever it is: one bad task must not harm another.
                log.exception("task not started", extra={"task": task_id})
                self._let_go(task_id)
                await self._reject_absent(task_id, str(error))
            else:
                self._let_go(task_id)
                self.watcher.follow(task_id, start.offset)

    def _let_go(self, task_id: str) -> None:
        self._bytes -= self._starts.pop(task_id).size
        self._freed.set()

    def _start(self, start: _Start) -> None:
        """Start the task, unless the journal has it. Runs in a thread."""
        task_id = start.spec.task_id
        if start.instead:
            start.instead(task_id)
            return
        try:
            self._journal.start(start.spec)
        except (JournalError, OSError):
            # Whether anything came of it is for the journal to say, not for the error.
            if self._journal.status(task_id).state is State.ABSENT:
                raise

    async def _run_errands(self) -> None:
        while True:
            errand, task_id, then = await self._errands.get()
            try:
                await self._in_thread(lambda errand=errand, task_id=task_id: errand(task_id))  # type: ignore[misc]
            except Exception:
                log.exception("order failed", extra={"task": task_id})  # it is stated again
            else:
                then()

    async def _reject_absent(self, task_id: str, why: str) -> None:
        """Say that a task could not be accepted, when the journal has nothing of it."""
        try:
            state = (await self._in_thread(lambda: self._journal.status(task_id))).state
        except (OSError, ValueError):
            state = State.ABSENT
        if state is State.ABSENT:
            self.watcher.say(rejected(task_id, why))

    async def _sweep(self) -> None:
        while True:
            try:
                await self._in_thread(self._journal.sweep)
            except Exception:
                log.exception("journal not swept")
            await asyncio.sleep(_SWEEP_EVERY)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
