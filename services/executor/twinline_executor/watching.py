"""Following a run or an output: what is so first, then what changes. Works at any replica."""

import asyncio
from collections.abc import AsyncIterator

from twinline_executor.changes import Changes
from twinline_executor.rows import Counts, Run, Task
from twinline_executor.states import ENDED, RunState
from twinline_executor.store.output import OutputStore
from twinline_executor.store.runs import RunStore

PAGE = 500
PIECE = 256 * 1024
POLL = 0.5
"""Seconds between looks at what other replicas write."""
LULL = 0.1
"""Seconds between two looks at a run of many tasks: changes come in bursts."""
SHORT_LULL = 0.02
"""The same where one task's output is looked at."""


class Watching:
    """Level-triggered views over the store."""

    def __init__(self, runs: RunStore, output: OutputStore, changes: Changes) -> None:
        self._runs = runs
        self._output = output
        self._changes = changes

    async def run(self, run_id: str) -> AsyncIterator[tuple[Run, Counts, list[Task]]]:
        """The run and the tasks that changed since the last item, at most 500 of them, until the run has ended."""
        seen = (-1, "")
        many = False
        shown: Run | None = None
        with self._changes.of(run_id) as watcher:
            while True:
                run = await asyncio.to_thread(self._runs.get, run_id)
                tasks = await asyncio.to_thread(self._runs.tasks_changed, run_id, after=seen, limit=PAGE)
                if tasks or run != shown:
                    yield run, await self._counts(run_id), tasks
                    shown = run
                if tasks:
                    seen = (tasks[-1].change, tasks[-1].id)
                if len(tasks) == PAGE:
                    many = True
                    continue
                if run.state is not RunState.RUNNING:
                    return
                await watcher.changed(within=POLL)
                if many:
                    await watcher.lull(LULL)

    async def run_only(self, run_id: str) -> AsyncIterator[tuple[Run, Counts]]:
        """The run as it changes, until it has ended."""
        shown: tuple[Run, Counts] | None = None
        with self._changes.of(run_id) as watcher:
            while True:
                now = await asyncio.to_thread(self._runs.standing, run_id)
                if now != shown:
                    yield now
                    shown = now
                if now[0].state is not RunState.RUNNING:
                    return
                await watcher.changed(within=POLL)
                await watcher.lull(LULL)

    async def output(self, task_id: str, offset: int, *, follow: bool) -> AsyncIterator[tuple[int, bytes]]:
        """Output from `offset` on, in pieces of at most 256 KiB; with `follow`, until the task has ended."""
        with self._changes.of(task_id) as watcher:
            while True:
                task = await asyncio.to_thread(self._runs.task, task_id)
                while offset < task.output_size:
                    if not (data := await asyncio.to_thread(self._output.read, task_id, offset, PIECE)):
                        break
                    yield offset, data
                    offset += len(data)
                if not follow or task.state in ENDED:
                    return
                await watcher.changed(within=POLL)
                await asyncio.sleep(SHORT_LULL)

    async def _counts(self, run_id: str) -> Counts:
        return (await asyncio.to_thread(self._runs.counts, [run_id]))[run_id]
