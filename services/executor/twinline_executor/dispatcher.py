"""Owns the unfinished tasks of the runs that this replica follows, and hands them to the lines.

A run is followed by the replica that started it; when that one dies, another claims the run and states its tasks again
from what is stored. Nothing else needs to be known, since hosts keep the truth.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from twinline_executor.active import ActiveRun, ActiveTask
from twinline_executor.agent_line import AgentLine
from twinline_executor.credentials import Credentials
from twinline_executor.environment import run_env
from twinline_executor.inputs import check_size
from twinline_executor.recorder import Recorder
from twinline_executor.rows import Run, Task
from twinline_executor.settings import Settings
from twinline_executor.ssh_line import SshLine
from twinline_executor.states import ENDED, Event, Line, RunState
from twinline_executor.store.owners import OwnerStore
from twinline_executor.store.scripts import ScriptStore
from twinline_kit.clock import Clock
from twinline_kit.errors import Error
from twinline_kit.loops import forever, until_done

log = logging.getLogger(__name__)

LOOK_FOR_CANCELS = 0.5
SHELL = b"#!/bin/sh\n"


class Dispatcher:
    """Everything in flight on this replica."""

    def __init__(
        self, replica: str, *, owners: OwnerStore, scripts: ScriptStore, credentials: Credentials, recorder: Recorder,
        ssh: SshLine, agents: AgentLine, settings: Settings, clock: Clock,
    ) -> None:  # fmt: skip
        self.replica = replica
        self._owners = owners
        self._scripts = scripts
        self._credentials = credentials
        self._recorder = recorder
        self._ssh = ssh
        self._agents = agents
        self._settings = settings
        self._clock = clock
        self._runs: dict[str, ActiveRun] = {}
        self._handing_over: dict[str, asyncio.Task[None]] = {}
        self._starting: set[str] = set()
        # Waits for nobody: calls that the database keeps waiting may take all of the loop's own threads.
        self._heart = ThreadPoolExecutor(1, "heartbeat")
        self._beats: dict[str, tuple[int, float]] = {}
        self._beat_known = 0
        self._looked = time.monotonic()
        self._group = asyncio.TaskGroup()
        self._dispatching = False
        recorder.on_stored = self._stored
        recorder.on_lost = self._lost

    async def run(self) -> None:
        """Dispatch until cancelled."""
        try:
            async with asyncio.TaskGroup() as outer:
                recording = outer.create_task(self._recorder.run())
                try:
                    await self._dispatch()
                finally:
                    recording.cancel()  # last: it stores what came up until then
        finally:
            await self._leave()

    async def _dispatch(self) -> None:
        async with self._group:
            self._group.create_task(self._ssh.run())
            self._group.create_task(self._agents.run())
            every = self._settings.beat_interval
            self._group.create_task(forever("heartbeat", self._beat, every=every, longest_pause=every))
            self._group.create_task(forever("replicas", self._share_runs, every=every, longest_pause=every))
            self._group.create_task(forever("cancels", self._look_for_cancels, every=LOOK_FOR_CANCELS))
            self._dispatching = True
            try:
                await asyncio.Event().wait()
            finally:
                self._dispatching = False

    async def _leave(self) -> None:
        """Have our runs taken over at once. The last thing we do."""
        await asyncio.to_thread(self._heart.shutdown)  # a beat that comes later would enter us again
        try:
            await asyncio.to_thread(self._owners.bury, self.replica)
        except Exception:
            log.exception("this replica could not take its leave; the others bury it once it is silent for long")

    # --- runs of this replica ---

    @contextmanager
    def starting(self, run_id: str) -> Iterator[None]:
        """While a run is being stored: it is not to be taken for one that a dead replica left."""
        self._starting.add(run_id)
        try:
            yield
        finally:
            self._starting.discard(run_id)

    def start(self, run: Run, planned: Sequence[Task]) -> None:
        """Follow a run that was just stored. When this replica begins or stops, it is left to who claims it."""
        if self._dispatching:
            self._follow(run, planned, adopted=False, deadline=time.monotonic() + run.reach_timeout)

    async def cancel(self, run_id: str) -> None:
        """End what has not ended of a run, when it is followed here; its owner looks for itself."""
        if run := self._runs.get(run_id):
            self._cancel(run)
            await self._recorder.settled(within=1.0)

    def _follow(self, run: Run, rows: Sequence[Task], *, adopted: bool, deadline: float) -> None:
        active = ActiveRun(run, deadline)
        active.closed = run.state is not RunState.RUNNING
        active.tasks = {row.id: ActiveTask(row, active, adopted=adopted) for row in rows}
        active.waiting = sum(row.state not in ENDED for row in rows)
        self._runs[run.id] = active
        self._handing_over[run.id] = self._group.create_task(self._hand_over(active))

    async def _hand_over(self, run: ActiveRun) -> None:
        """Give its tasks to their lines, however often that fails."""
        await until_done("hand over", partial(self._handed_over, run), run=run.run.id)
        del self._handing_over[run.run.id]

    async def _handed_over(self, run: ActiveRun) -> None:
        """Get together what the tasks share, then give them to their lines."""
        if not run.tasks:
            self._recorder.note_run(run)
            return
        try:
            followable = await self._prepared(run)
        except Error as error:
            self._refuse(run, error.reason, error.message)
            await self._credentials.mask(run)
            followable = not run.settled()
        if not followable:
            return
        by_ssh = [task for task in run.tasks.values() if task.line is Line.SSH]
        endpoints = await self._ssh.endpoints(by_ssh)
        self._agents.carry([task for task in run.tasks.values() if task.line is Line.AGENT and not task.settled])
        self._ssh.carry(by_ssh, endpoints)
        if run.run.canceled:
            self._cancel(run)

    async def _prepared(self, run: ActiveRun) -> bool:
        """Get all that a delivery needs. False when nothing is left to do; raises what stands in the way."""
        run.script = await self._script(run.run)
        opened = await self._credentials.open(run)
        if opened is None:
            return False
        env = run_env(run.run, opened)
        check_size(env)
        run.env = env
        return True

    async def _script(self, run: Run) -> bytes:
        if not run.script:
            command = run.command.encode()
            return command if command.startswith(b"#!") else SHELL + command
        return (await asyncio.to_thread(self._scripts.get, run.script, run.revision)).source

    def _refuse(self, run: ActiveRun, reason: str, message: str) -> None:
        """Deliver nothing of this run any more. What may be on its host is followed: that needs no secrets."""
        run.refusal = (reason, message)
        for task in list(run.tasks.values()):
            if not task.settled and task.never_sent():
                task.happen(Event.REFUSE, reason, message)
                self._recorder.note(task)

    def _cancel(self, run: ActiveRun) -> None:
        for task in list(run.tasks.values()):
            if not task.settled:
                task.cancel = True
                (self._agents if task.line is Line.AGENT else self._ssh).cancel(task)

    def _stored(self, task: ActiveTask, settled: bool) -> None:
        if task.run.released:
            return
        (self._agents if task.line is Line.AGENT else self._ssh).stored(task, settled)

    def _lost(self, task: ActiveTask) -> None:
        """This task is somebody else's by now: whatever is known of its run is read anew, if it is still ours."""
        log.warning("a task was left to another replica", extra={"task": task.id})
        self._release(task.run)

    def _release(self, run: ActiveRun) -> None:
        """Let go of a run altogether: whoever follows it next, and be it this replica, begins with what is stored."""
        if run.released:
            return  # and may be followed anew already, by another object
        run.released = True
        del self._runs[run.run.id]
        if handing_over := self._handing_over.pop(run.run.id, None):
            handing_over.cancel()
        self._recorder.release(run)
        for task in run.tasks.values():
            (self._agents if task.line is Line.AGENT else self._ssh).drop(task)

    # --- other replicas ---

    async def _beat(self) -> None:
        """Say that we live, and hear whether we were taken for dead."""
        loop = asyncio.get_running_loop()
        beat = await loop.run_in_executor(self._heart, self._owners.beat, self.replica, self._beat_known)
        if beat <= self._beat_known:
            self._release_all()
        self._beat_known = beat

    async def _share_runs(self) -> None:
        """Bury who is silent, and follow exactly the runs that are ours. With many of them that takes its time."""
        if not self._beat_known:
            await self._beat()
        self._note_beats(await asyncio.to_thread(self._owners.beats))
        for replica, (last, since) in list(self._beats.items()):
            if time.monotonic() - since > self._settings.beat_limit:
                log.warning("a replica is silent; its runs are taken over", extra={"replica": replica})
                await asyncio.to_thread(self._owners.bury, replica, last)
        held = set(self._runs)
        await asyncio.to_thread(self._owners.claim, self.replica, self._beat_known)
        owned = await asyncio.to_thread(self._owners.owned, self.replica)
        for run_id in held - owned.keys():
            if run := self._runs.get(run_id):
                self._release(run)
        for run_id in owned.keys() - self._runs.keys() - self._starting:
            try:
                await self._adopt(run_id)
            except Exception:
                log.exception("a run could not be taken over, will retry", extra={"run": run_id})

    def _release_all(self) -> None:
        """We were taken for dead: whatever we follow may have been another's meanwhile, also if it is ours again."""
        log.warning("this replica was taken for dead; its runs are read anew", extra={"runs": len(self._runs)})
        for run in list(self._runs.values()):
            self._release(run)

    def _note_beats(self, beats: dict[str, int]) -> None:
        now = time.monotonic()
        was_blind = now - self._looked > max(self._settings.beat_limit / 2, 2 * self._settings.beat_interval)
        self._looked = now
        # A beat that stood still while nobody could look, as without the database, is no sign of death.
        known = {} if was_blind else self._beats
        self._beats = {
            replica: known[replica] if replica in known and known[replica][0] == beat else (beat, now)
            for replica, beat in beats.items()
            if replica != self.replica
        }

    async def _adopt(self, run_id: str) -> None:
        known = self._beat_known
        run, rows = await asyncio.to_thread(self._owners.open_run, run_id)
        if run.owner != self.replica or self._beat_known < known:
            return  # it is another's by now, or may have been one's since it was read
        if run_id in self._runs or run_id in self._starting:
            return
        log.info("following a run that was left", extra={"run": run_id, "tasks": len(rows)})
        age = (self._clock() - run.create_time).total_seconds()
        self._follow(run, rows, adopted=True, deadline=time.monotonic() + run.reach_timeout - age)

    async def _look_for_cancels(self) -> None:
        if not self._runs:
            return
        known = {run_id for run_id, run in self._runs.items() if all(task.cancel for task in run.tasks.values())}
        for run_id in await asyncio.to_thread(self._owners.canceled, self.replica, known):
            if run := self._runs.get(run_id):
                self._cancel(run)
