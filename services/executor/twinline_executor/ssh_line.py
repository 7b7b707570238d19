"""The line to v4 hosts: one SSH channel carries a task, and after a cut another one follows its journal."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from functools import partial

import asyncssh

from twinline_executor.active import ActiveTask
from twinline_executor.host_keys import HostKeys
from twinline_executor.reasons import TaskReason
from twinline_executor.recorder import Recorder
from twinline_executor.rows import SeenHostKey, Target
from twinline_executor.settings import Settings
from twinline_executor.signer import Signer
from twinline_executor.ssh_attendance import Attendance
from twinline_executor.ssh_connections import COMMAND_TIMEOUT, Connections, PooledConnection
from twinline_executor.ssh_login import Endpoint, LineDown, host_key_line, log_in, may_go_on
from twinline_executor.states import Event
from twinline_executor.store.targets import TargetStore
from twinline_journal import cancel_command, withdraw_command
from twinline_kit.loops import backoff, end_if_cancelled, until_done

log = logging.getLogger(__name__)

_pause = partial(backoff, first=0.25, longest=15.0)


class SshLine:
    """Carries tasks to v4 hosts. Each task has a coroutine, which ends when the task is settled."""

    def __init__(self, targets: TargetStore, recorder: Recorder, signer: Signer, settings: Settings) -> None:
        self._targets = targets
        self._host_keys = HostKeys(targets)
        self._recorder = recorder
        self._signer = signer
        self._settings = settings
        self._carried: dict[str, asyncio.Task[None]] = {}
        self._canceling: dict[str, asyncio.Task[None]] = {}
        self._keepers: dict[str, PooledConnection] = {}
        self._group = asyncio.TaskGroup()
        self._connections = Connections(
            self._dial,
            self._admit,
            at_most=settings.ssh_connections,
            opening_at_most=settings.ssh_connecting,
            idle=settings.ssh_idle,
            patience=settings.ssh_patience,
        )

    async def run(self) -> None:
        """Carry until cancelled."""
        async with self._group:
            self._group.create_task(self._connections.run())
            await asyncio.Event().wait()

    async def endpoints(self, tasks: Iterable[ActiveTask]) -> dict[str, Endpoint]:
        """Where the tasks' targets are, by target id; those that cannot be reached by SSH are left out."""
        found = await asyncio.to_thread(self._targets.by_id, [task.target_id for task in tasks])
        return {target.id: endpoint for target in found.values() if (endpoint := _endpoint(target.id, target))}

    def carry(self, tasks: Iterable[ActiveTask], endpoints: Mapping[str, Endpoint]) -> None:
        """Take these tasks to their hosts, or follow those that are there."""
        for task in tasks:
            if not task.settled and task.id not in self._carried:
                carrying = self._carry(task, endpoints.get(task.target_id))
                self._carried[task.id] = self._group.create_task(carrying)

    def cancel(self, task: ActiveTask) -> None:
        """End a task on its host, or see that it never starts."""
        if task.never_sent():
            task.happen(Event.CANCEL)
            self._recorder.note(task)
            self.drop(task)
        else:
            self._see_to(task)

    def _see_to(self, task: ActiveTask) -> None:
        """Have its host told to end it, or never to start it."""
        if task.id not in self._canceling:
            self._canceling[task.id] = self._group.create_task(self._cancel_on_host(task))

    def stored(self, task: ActiveTask, settled: bool) -> None:
        """What was known of the task is in the database: its host may forget it once its end is."""
        if settled and (kept := self._keepers.pop(task.id, None)):
            kept.forget(task.id)

    def drop(self, task: ActiveTask) -> None:
        """Another replica follows it now, or nobody needs to."""
        if carrying := self._carried.pop(task.id, None):
            carrying.cancel()
        if not task.settled or task.run.released:
            self._keepers.pop(task.id, None)
        if canceling := self._canceling.pop(task.id, None):
            canceling.cancel()

    async def _carry(self, task: ActiveTask, endpoint: Endpoint | None) -> None:
        failures = 0
        try:
            while not task.settled and endpoint is not None:
                before = _progress(task)
                await self._attempt(task, endpoint)
                end_if_cancelled()
                if not task.settled:
                    failures = failures + 1 if _progress(task) == before else 1
                    await asyncio.sleep(_pause(failures))
                    endpoint = await self._endpoint(task.target_id)
            if not task.settled:
                self._give_up(
                    task,
                    TaskReason.TARGET_DELETED,
                    f"target {task.target_name} was deleted; its host cannot be asked any more",
                )
        finally:
            if self._carried.get(task.id) is asyncio.current_task():  # else another object's has this place by now
                del self._carried[task.id]
                if not task.settled:
                    self._keepers.pop(task.id, None)

    async def _attempt(self, task: ActiveTask, endpoint: Endpoint) -> None:
        """Use one channel until it ends."""
        try:
            async with self._connections.channel(endpoint, new_work=task.startable()) as kept:
                self._keepers[task.id] = kept
                await Attendance(task, kept, self._recorder, self._settings).attend()
            if task.unclaimed and not task.startable():
                task.give_up(TaskReason.REACHED_TOO_LATE, "the host did not start the task in time")
            if task.verdict and not task.settled:
                self._see_to(task)  # until its host has promised, what was sent may still arrive
        except LineDown as down:
            if down.passing or task.offers or task.accepted:
                self._out_of_reach(task, down.reason, down.message)
            else:
                self._give_up(task, down.reason, down.message)
        except Exception:
            log.exception("attending a task failed unexpectedly, will retry", extra={"task": task.id})
            message = "the executor met an error of its own; its log has the rest"
            self._out_of_reach(task, TaskReason.EXECUTOR_FAILED, message)

    def _out_of_reach(self, task: ActiveTask, reason: str, message: str) -> None:
        if not task.settled and task.out_of_reach(reason, message, unknown_after=self._settings.unknown_after):
            self._recorder.note(task)

    def _give_up(self, task: ActiveTask, reason: str, message: str) -> None:
        if not task.settled:
            task.happen(Event.REFUSE if task.never_sent() else Event.INTERRUPT, reason, message)
            self._recorder.note(task)

    async def _endpoint(self, target_id: str) -> Endpoint | None:
        """Where the target is now; None when it was deleted. Waits for a database that does not answer."""
        read = partial(asyncio.to_thread, self._targets.by_id, [target_id])
        found = await until_done("read target", read, target=target_id)
        return _endpoint(target_id, found[target_id]) if target_id in found else None

    async def _admit(self, endpoint: Endpoint) -> None:
        await may_go_on(endpoint, self._signer)

    async def _dial(self, endpoint: Endpoint) -> asyncssh.SSHClientConnection:
        connection = await log_in(
            endpoint, self._signer,
            connect_timeout=self._settings.ssh_connect_timeout, keepalive=self._settings.ssh_keepalive,
        )  # fmt: skip
        try:
            await self._pin(endpoint, connection)
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _pin(self, endpoint: Endpoint, connection: asyncssh.SSHClientConnection) -> None:
        """Learn the host key at first contact. Somebody else's first contact may have been a moment earlier."""
        key = connection.get_server_host_key()
        if endpoint.host_key or key is None:
            return
        seen = host_key_line(key)
        pinned = await self._host_keys.pin(SeenHostKey(endpoint.target_id, endpoint.host, endpoint.port, seen))
        if pinned and pinned.split()[:2] != seen.split():
            message = f"{endpoint.host} port {endpoint.port} shows another host key than a moment ago"
            raise LineDown(TaskReason.HOST_KEY_MISMATCH, message, passing=False)

    async def _cancel_on_host(self, task: ActiveTask) -> None:
        try:
            await self._cancel_until_told(task)
        finally:
            if self._canceling.get(task.id) is asyncio.current_task():
                del self._canceling[task.id]

    async def _cancel_until_told(self, task: ActiveTask) -> None:
        failures = 0
        while not task.settled:
            try:
                endpoint = await self._endpoint(task.target_id)
                if endpoint is None or await self._told_to_cancel(task, endpoint):
                    return
            except (LineDown, OSError, asyncssh.Error, TimeoutError) as error:
                log.info("task is not canceled on its host yet", extra={"task": task.id, "error": str(error)})
            except Exception:
                log.exception("canceling a task failed unexpectedly, will retry", extra={"task": task.id})
            end_if_cancelled()
            failures += 1
            await asyncio.sleep(_pause(failures))

    async def _told_to_cancel(self, task: ActiveTask, endpoint: Endpoint) -> bool:
        async with self._connections.channel(endpoint, new_work=False) as kept:
            canceling = task.cancel
            command = (cancel_command if canceling else withdraw_command)(task.id)
            done = await kept.connection.run(command, check=False, timeout=COMMAND_TIMEOUT, encoding=None)
        return done.exit_status == 0 and canceling == task.cancel  # else it was canceled meanwhile


def _endpoint(target_id: str, target: Target) -> Endpoint | None:
    if not target.host:
        return None
    return Endpoint(target_id, target.host, target.port, target.username, target.cloud_key, target.host_key)


def _progress(task: ActiveTask) -> tuple[object, ...]:
    """What a host that works moves on; that it merely answers is no reason to ask it again at once."""
    return task.received, task.accepted, task.start_time
