"""What is to be said to agents next: tasks that are wanted, cancels, and what they may forget. Nothing here waits."""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import islice, takewhile

from twinline.agent_gateway.v1 import agents_pb2, fleet_pb2
from twinline_executor import convert
from twinline_executor.active import ActiveRun, ActiveTask
from twinline_executor.environment import task_env
from twinline_executor.settings import Settings

BATCH = 256
LAZY = 9.0
"""Seconds that a final acknowledgement waits for another message to the same agent."""


@dataclass(slots=True)
class _Finals:
    """What one agent may forget: offsets by task, and since when it was not told."""

    since: float
    offsets: dict[str, int] = field(default_factory=dict)


class Outbox:
    """Collects by task and agent, and makes requests of it: at most one mention of each in what waits."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tasks: dict[tuple[str, bool], dict[str, ActiveTask]] = {}
        self._cancels: dict[str, ActiveTask] = {}
        self._acks: dict[str, tuple[str, int]] = {}
        self._finals: dict[str, _Finals] = {}
        self.waiting = asyncio.Event()

    def state(self, task: ActiveTask) -> None:
        """Say what is wanted of this task: that it starts, how it stands, that it ends, or that it never starts."""
        key = (task.run.run.id, task.startable())
        self._tasks.setdefault(key, {})[task.id] = task
        if task.cancel:
            self._cancels[task.id] = task
        task.heard = time.monotonic()
        self.waiting.set()

    def acknowledge(self, task: ActiveTask, settled: bool) -> None:
        """Say how much of its output is stored; when its end is too, that its journal may be forgotten."""
        if settled:
            self._acks.pop(task.id, None)
            self.let_forget(task.agent_id, task.id, task.stored)
        elif task.stored:
            self._acks[task.id] = (task.agent_id, task.stored)
            self.waiting.set()

    def let_forget(self, agent_id: str, task_id: str, offset: int) -> None:
        """The task's end is stored. Its agent is told with the next message that it gets anyway, or a while later."""
        self._finals.setdefault(agent_id, _Finals(time.monotonic())).offsets[task_id] = offset

    def drop(self, task: ActiveTask) -> None:
        """Say nothing more of it: another replica follows it now, or nobody needs to."""
        self._cancels.pop(task.id, None)
        for key in ((task.run.run.id, True), (task.run.run.id, False)):
            if tasks := self._tasks.get(key):
                tasks.pop(task.id, None)
                if not tasks:
                    del self._tasks[key]

    def due(self) -> list[str]:
        """Agents whose final acknowledgements have waited long enough; the oldest are first."""
        since = time.monotonic() - LAZY
        oldest = islice(self._finals.items(), 4 * BATCH)
        return [agent_id for agent_id, _ in takewhile(lambda waiting: waiting[1].since <= since, oldest)]

    def next_request(self) -> fleet_pb2.DispatchRequest | None:
        """What goes into the next message; None when nothing waits."""
        request = fleet_pb2.DispatchRequest()
        if batch := self._next_batch():
            request.batches.append(batch)
        self._add_orders(request, [task.agent_id for batch in request.batches for task in batch.tasks])
        return request if request.batches or request.orders else None

    def _next_batch(self) -> fleet_pb2.DispatchBatch | None:
        """At most 256 tasks of one run, which share its work."""
        while self._tasks:
            key = next(iter(self._tasks))
            waiting = self._tasks[key]
            tasks = [waiting.pop(task_id) for task_id in list(islice(waiting, BATCH))]
            if not waiting:
                del self._tasks[key]
            # What held when it was noted may have changed since.
            starting = key[1] and all(task.startable() for task in tasks)
            if key[1] and not starting:
                for task in tasks:
                    if not task.settled:
                        self._tasks.setdefault((key[0], task.startable()), {})[task.id] = task
                continue
            tasks = [task for task in tasks if not task.settled]
            if tasks:
                return self._batch(tasks, starting=starting)
        return None

    def _batch(self, tasks: list[ActiveTask], *, starting: bool) -> fleet_pb2.DispatchBatch:
        batch = fleet_pb2.DispatchBatch(work=self._work(tasks[0].run) if starting else None)
        for task in tasks:
            env = task_env(task) if starting else None
            task.offers += starting
            batch.tasks.add(
                task_id=task.id, agent_id=task.agent_id, from_offset=task.received, env=env,
                withdraw=task.verdict is not None,
            )  # fmt: skip
        return batch

    def _work(self, run: ActiveRun) -> agents_pb2.Work:
        return agents_pb2.Work(
            script=run.script, env=run.env, timeout=convert.duration(run.run.timeout),
            kill_after=convert.duration(self._settings.kill_after),
            max_output=run.run.output_limit(self._settings.max_output),
        )  # fmt: skip

    def _add_orders(self, request: fleet_pb2.DispatchRequest, addressed: Collection[str]) -> None:
        """Cancels and acknowledgements by agent, and with them what those and the `addressed` agents may forget."""
        orders: dict[str, fleet_pb2.AgentOrders] = {}

        def of(agent_id: str) -> fleet_pb2.AgentOrders:
            if (known := orders.get(agent_id)) is None:
                known = orders[agent_id] = request.orders.add(agent_id=agent_id)
            return known

        for task_id in list(islice(self._cancels, BATCH)):
            of(self._cancels.pop(task_id).agent_id).cancel.append(task_id)
        for task_id in list(islice(self._acks, 4 * BATCH)):
            agent_id, offset = self._acks.pop(task_id)
            of(agent_id).acks.add(task_id=task_id, offset=offset)
        for agent_id in {*orders, *addressed, *self.due()}:
            if finals := self._finals.pop(agent_id, None):
                acks = of(agent_id).acks
                for task_id, offset in finals.offsets.items():
                    acks.add(task_id=task_id, offset=offset, final=True)
