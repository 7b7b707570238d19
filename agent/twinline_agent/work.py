"""Orders become journal entries: starts, cancels and forgets, a few at once, each on its own."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline_agent.convert import rejected, to_spec
from twinline_agent.watcher import Watcher
from twinline_journal import Journal, JournalError, State, TaskSpec, check_task_id

log = logging.getLogger(__name__)

AT_ONCE = 8
WAITING = 256

_SWEEP_EVERY = 3600.0

Step = Callable[[], None]
T = TypeVar("T")


class Work:
    """What this agent does. It goes on while there is no stream; the journal alone remembers."""

    def __init__(self, root: Path) -> None:
        self._journal = Journal(root)
        self._threads = ThreadPoolExecutor(AT_ONCE, "work")
        # A full queue stops the reading of orders; the steps in it end by themselves, so it never stays full.
        self._steps: asyncio.Queue[tuple[str, Step, Step]] = asyncio.Queue(WAITING)
        self.watcher = Watcher(self._journal)

    async def run(self) -> None:
        """Do what was ordered, and clean up, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._take_steps())
            group.create_task(self._sweep())

    async def obey(self, orders: pb.Orders) -> None:
        """Take on what the gateway wants. A bad order is rejected and harms no other."""
        for task_id in orders.cancel:
            await self._put(task_id, lambda each=task_id: self._journal.cancel(each))  # type: ignore[misc]
        for delivery in orders.deliveries:
            await self._deliver(delivery)
        for ack in orders.acks:
            self.watcher.acknowledge(ack.task_id, ack.offset)
            if ack.final:
                self.watcher.leave(ack.task_id)
                await self._put(ack.task_id, lambda each=ack.task_id: self._journal.forget(each))  # type: ignore[misc]

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
        if spec is None:
            self.watcher.follow(task_id, offset)
        else:
            await self._put(task_id, lambda: self._start(spec), lambda: self.watcher.follow(task_id, offset))

    def _start(self, spec: TaskSpec) -> None:
        """Start the task, unless the journal has it. Runs in a thread."""
        try:
            self._journal.start(spec)
        except (JournalError, OSError):
            # Whether anything came of it is for the journal to say, not for the error.
            if self._journal.status(spec.task_id).state is State.ABSENT:
                raise

    async def _put(self, task_id: str, step: Step, then: Step = lambda: None) -> None:
        await self._steps.put((task_id, step, then))

    async def _take_steps(self) -> None:
        while True:
            task_id, step, then = await self._steps.get()
            try:
                await self._in_thread(step)
                then()
            except Exception as error:
                # Whatever it is: one bad task must not harm another.
                log.exception("order failed", extra={"task": task_id})
                await self._reject_absent(task_id, str(error))

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
