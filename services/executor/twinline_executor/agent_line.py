"""The line to v5 hosts: one stream to a gateway, on which this replica states what it wants of agents.

Stating is level-triggered: a task is stated again whenever a line in between was cut, and whenever nothing was heard
of it for a while. Until the host is known to have it, it is stated with the work; from then on without, which never
starts it.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice, takewhile

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from twinline.agent_gateway.v1 import agents_pb2, fleet_pb2
from twinline.agent_gateway.v1 import fleet_pb2_grpc as rpc
from twinline_executor import convert
from twinline_executor.active import ActiveRun, ActiveTask, End, host_time
from twinline_executor.environment import task_env
from twinline_executor.reasons import TaskReason
from twinline_executor.recorder import Recorder
from twinline_executor.settings import Settings
from twinline_executor.states import Event, State
from twinline_executor.store.runs import RunStore
from twinline_journal import Reason
from twinline_kit.errors import Error
from twinline_kit.loops import backoff, forever

log = logging.getLogger(__name__)

BATCH = 256
TICK = 1.0
LAZY = 9.0
"""Seconds that a final acknowledgement waits for another message to the same agent."""
PARTING = 1.0
"""Seconds that a replica which stops takes to send them."""
SETTLED = 10.0
"""Seconds that a stream must hold before a cut counts as the first one again."""

TaskReport = agents_pb2.TaskReport
_REASONS = {
    TaskReport.END_EXITED: Reason.EXITED,
    TaskReport.END_SIGNALED: Reason.SIGNALED,
    TaskReport.END_TIMED_OUT: Reason.TIMED_OUT,
    TaskReport.END_CANCELED: Reason.CANCELED,
    TaskReport.END_PROCESS_GONE: Reason.PROCESS_GONE,
    TaskReport.END_HOST_REBOOTED: Reason.HOST_REBOOTED,
    TaskReport.END_START_UNKNOWN: Reason.START_UNKNOWN,
    TaskReport.END_JOURNAL_UNREADABLE: Reason.JOURNAL_UNREADABLE,
}
_ABSENCE = {
    fleet_pb2.Agent.STATE_NEVER_ENROLLED: (
        TaskReason.AGENT_NEVER_ENROLLED,
        "the agent of this server never enrolled; look at the server's boot log, and whether it can reach the gateway",
    ),
    fleet_pb2.Agent.STATE_REVOKED: (TaskReason.AGENT_REVOKED, "the agent of this server was revoked"),
}
_OFFLINE = (
    TaskReason.AGENT_OFFLINE,
    "the agent of this server is not connected; it takes the task up when it comes back",
)
_NOT_CONFIGURED = (
    TaskReason.GATEWAY_NOT_CONFIGURED,
    "this executor knows no agent gateway; set TWINLINE_EXECUTOR_GATEWAY_ADDRESS",
)
_NO_GATEWAY = (TaskReason.GATEWAY_UNAVAILABLE, "no agent gateway answers")

Call = grpc.aio.StreamStreamCall[fleet_pb2.DispatchRequest, fleet_pb2.DispatchResponse]


@dataclass(slots=True)
class _Finals:
    """What one agent may forget: offsets by task, and since when it was not told."""

    since: float
    offsets: dict[str, int] = field(default_factory=dict)


class AgentLine:
    """Carries tasks to v5 hosts."""

    def __init__(
        self, channel: grpc.aio.Channel | None, replica: str, runs: RunStore, recorder: Recorder, settings: Settings
    ) -> None:
        self._fleet = rpc.FleetServiceStub(channel) if channel is not None else None
        self._replica = replica
        self._runs = runs
        self._recorder = recorder
        self._settings = settings
        self._wanted: dict[str, ActiveTask] = {}
        self._by_agent: dict[str, dict[str, ActiveTask]] = {}
        self._to_state: dict[tuple[str, bool], dict[str, ActiveTask]] = {}
        self._cancels: dict[str, ActiveTask] = {}
        self._acks: dict[str, tuple[str, int]] = {}
        self._finals: dict[str, _Finals] = {}
        self._speak = asyncio.Event()
        self._connected = False

    async def run(self) -> None:
        """Carry until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(forever("agent tasks", self._tick, every=TICK))
                if self._fleet is not None:
                    group.create_task(self._dial(self._fleet))
        finally:
            if self._fleet is not None and self._connected and self._finals:
                await self._part(self._fleet)

    def carry(self, tasks: Iterable[ActiveTask]) -> None:
        """Take these tasks to their agents, or follow those that are there."""
        for task in tasks:
            if self._fleet is None:
                task.happen(Event.INTERRUPT if task.accepted else Event.REFUSE, *_NOT_CONFIGURED)
                self._recorder.note(task)
                continue
            self._wanted[task.id] = task
            self._by_agent.setdefault(task.agent_id, {})[task.id] = task
            self._state(task)

    def cancel(self, task: ActiveTask) -> None:
        """End a task on its host, or see that it never starts."""
        if task.cancelable_at_once():
            task.happen(Event.CANCEL)
            self._recorder.note(task)
            self.drop(task)
        elif task.id in self._wanted:
            self._state(task)

    def stored(self, task: ActiveTask) -> None:
        """All that is known of the task is in the database: acknowledge it."""
        if task.settled:
            self._acks.pop(task.id, None)
            self._let_forget(task.agent_id, task.id, task.stored)
            self.drop(task)
        elif task.stored:
            self._acks[task.id] = (task.agent_id, task.stored)
            self._speak.set()

    def drop(self, task: ActiveTask) -> None:
        """Another replica follows it now, or nobody needs to."""
        self._wanted.pop(task.id, None)
        self._cancels.pop(task.id, None)
        if some := self._by_agent.get(task.agent_id):
            some.pop(task.id, None)
            if not some:
                del self._by_agent[task.agent_id]

    # --- the stream ---

    async def _dial(self, fleet: "rpc.FleetServiceAsyncStub") -> None:
        failures = 0
        while True:
            opened = time.monotonic()
            try:
                await self._talk(fleet)
            except* (Error, asyncio.InvalidStateError) as lost:
                log.warning("gateway stream lost, will dial again", extra={"error": str(lost.exceptions[0])})
            except* Exception:
                log.exception("gateway stream failed unexpectedly, will dial again")
            self._connected = False
            failures = 1 if time.monotonic() - opened > SETTLED else failures + 1
            await asyncio.sleep(backoff(failures))

    async def _talk(self, fleet: "rpc.FleetServiceAsyncStub") -> None:
        call = fleet.Dispatch()
        try:
            await call.write(fleet_pb2.DispatchRequest(hello=fleet_pb2.DispatchHello(dispatcher=self._replica)))
            self._connected = True
            for task in self._wanted.values():
                self._state(task)
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self._send(call))
                await self._receive(call)
                sending.cancel()
        finally:
            call.cancel()

    async def _part(self, fleet: "rpc.FleetServiceAsyncStub") -> None:
        """This replica stops: let agents forget what is stored, for nobody else will tell them."""
        call = fleet.Dispatch()  # the other one is gone: cancelling a read cancels the call
        try:
            async with asyncio.timeout(PARTING):
                await call.write(fleet_pb2.DispatchRequest(hello=fleet_pb2.DispatchHello(dispatcher=self._replica)))
                while self._finals:
                    orders = self._next_orders(list(islice(self._finals, 4 * BATCH)))
                    await call.write(fleet_pb2.DispatchRequest(orders=orders))
                await call.done_writing()
                async for _ in call:
                    pass
        except (Error, asyncio.InvalidStateError, TimeoutError) as error:
            log.info("agents were not told what they may forget", extra={"error": str(error)})
        finally:
            call.cancel()

    async def _send(self, call: Call) -> None:
        while True:
            await self._speak.wait()
            self._speak.clear()
            while request := self._next_request():
                await call.write(request)

    async def _receive(self, call: Call) -> None:
        async for response in call:
            strangers: list[tuple[str, str]] = []
            for heard in response.reports:
                for report in heard.reports:
                    if not self._hear(heard.agent_id, report):
                        strangers.append((heard.agent_id, report.task_id))
            for presence in response.presence:
                for task in self._by_agent.get(presence.agent_id, {}).values():
                    self._state(task)
            for absence in response.not_connected:
                self._not_connected(absence)
            if strangers:
                await self._answer_strangers(strangers)
            await self._recorder.room()

    # --- down ---

    def _state(self, task: ActiveTask) -> None:
        """Say with the next message what is wanted of this task."""
        key = (task.run.run.id, task.startable())
        self._to_state.setdefault(key, {})[task.id] = task
        if task.cancel:
            self._cancels[task.id] = task
        task.heard = time.monotonic()
        self._speak.set()

    def _next_request(self) -> fleet_pb2.DispatchRequest | None:
        request = fleet_pb2.DispatchRequest()
        if batch := self._next_batch():
            request.batches.append(batch)
        request.orders.extend(self._next_orders([task.agent_id for batch in request.batches for task in batch.tasks]))
        return request if request.batches or request.orders else None

    def _next_batch(self) -> fleet_pb2.DispatchBatch | None:
        """At most 256 tasks of one run, which share its work."""
        while self._to_state:
            key = next(iter(self._to_state))
            waiting = self._to_state[key]
            tasks = [waiting.pop(task_id) for task_id in list(islice(waiting, BATCH))]
            if not waiting:
                del self._to_state[key]
            # What held when it was noted may have changed since.
            starting = key[1] and all(task.startable() for task in tasks)
            if key[1] and not starting:
                for task in tasks:
                    if not task.settled:
                        self._to_state.setdefault((key[0], task.startable()), {})[task.id] = task
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
            batch.tasks.add(task_id=task.id, agent_id=task.agent_id, from_offset=task.received, env=env)
        return batch

    def _work(self, run: ActiveRun) -> agents_pb2.Work:
        return agents_pb2.Work(
            script=run.script, env=run.env, timeout=convert.duration(run.run.timeout),
            kill_after=convert.duration(self._settings.kill_after), max_output=self._settings.max_output,
        )  # fmt: skip

    def _let_forget(self, agent_id: str, task_id: str, offset: int) -> None:
        """The task's end is stored. Its agent is told with the next message that it gets anyway, or a while later."""
        self._finals.setdefault(agent_id, _Finals(time.monotonic())).offsets[task_id] = offset

    def _next_orders(self, addressed: Collection[str]) -> list[fleet_pb2.AgentOrders]:
        """Cancels and acknowledgements by agent, and with them what those and the `addressed` agents may forget."""
        orders: dict[str, fleet_pb2.AgentOrders] = {}

        def of(agent_id: str) -> fleet_pb2.AgentOrders:
            return orders.setdefault(agent_id, fleet_pb2.AgentOrders(agent_id=agent_id))

        for task_id in list(islice(self._cancels, BATCH)):
            of(self._cancels.pop(task_id).agent_id).cancel.append(task_id)
        for task_id in list(islice(self._acks, 4 * BATCH)):
            agent_id, offset = self._acks.pop(task_id)
            of(agent_id).acks.add(task_id=task_id, offset=offset)
        for agent_id in {*orders, *addressed, *self._due()}:
            if finals := self._finals.pop(agent_id, None):
                for task_id, offset in finals.offsets.items():
                    of(agent_id).acks.add(task_id=task_id, offset=offset, final=True)
        return list(orders.values())

    def _due(self) -> list[str]:
        """Agents whose final acknowledgements have waited long enough; the oldest are first."""
        since = time.monotonic() - LAZY
        oldest = islice(self._finals.items(), 4 * BATCH)
        return [agent_id for agent_id, _ in takewhile(lambda waiting: waiting[1].since <= since, oldest)]

    # --- up ---

    def _hear(self, agent_id: str, report: agents_pb2.TaskReport) -> bool:
        """Take in what an agent says. False when the task is not one that is followed here."""
        task = self._wanted.get(report.task_id)
        if task is None or task.settled:
            return False
        if task.agent_id != agent_id:
            log.warning("agent reports on a task of another", extra={"agent": agent_id, "task": task.id})
            return True
        task.heard = time.monotonic()
        task.lost_since = None
        if report.state == TaskReport.STATE_ABSENT:
            self._absent(task)
        elif report.state == TaskReport.STATE_REJECTED:
            self._rejected(task, report.message)
        elif not self._recorder.note_output(task, report.offset, report.data):
            self._state(task)  # something in between was lost: from the stored end on, please
        elif not task.settled:
            self._advance(task, report)
        return True

    def _advance(self, task: ActiveTask, report: agents_pb2.TaskReport) -> None:
        complete = task.received >= report.output_size
        before = (task.state, task.reason)
        if report.state == TaskReport.STATE_FINISHED and complete:
            task.end(_end(report))
        elif report.state == TaskReport.STATE_INTERRUPTED and (
            complete or report.end == TaskReport.END_JOURNAL_UNREADABLE
        ):
            task.interrupted(_REASONS.get(report.end))
        else:
            task.is_on_host(_time(report.start_time), running=report.state != TaskReport.STATE_ACCEPTED)
        if before != (task.state, task.reason) or task.settled:
            self._recorder.note(task)

    def _absent(self, task: ActiveTask) -> None:
        task.absent()
        if task.settled:
            self._recorder.note(task)
        else:
            self._state(task)

    def _rejected(self, task: ActiveTask, message: str) -> None:
        event = Event.INTERRUPT if task.accepted else Event.REFUSE
        task.happen(event, TaskReason.AGENT_REJECTED, message or "the agent could not take the task in")
        self._recorder.note(task)

    def _not_connected(self, absence: fleet_pb2.NotConnected) -> None:
        reason, message = _ABSENCE.get(absence.state, _OFFLINE)
        for task_id in absence.task_ids:
            task = self._wanted.get(task_id)
            if task is None or task.settled or task.agent_id != absence.agent_id:
                continue
            task.heard = time.monotonic()
            if task.startable():
                task.offers = max(0, task.offers - 1)  # this one did not get through
            if absence.state == fleet_pb2.Agent.STATE_REVOKED:
                task.happen(Event.REFUSE if task.cancelable_at_once() else Event.INTERRUPT, reason, message)
                self._recorder.note(task)
            elif task.out_of_reach(reason, message, unknown_after=self._settings.unknown_after):
                self._recorder.note(task)

    async def _answer_strangers(self, strangers: list[tuple[str, str]]) -> None:
        """An agent still holds tasks that were settled before: let it forget them."""
        agents = {task_id: agent_id for agent_id, task_id in strangers}
        for row in await asyncio.to_thread(self._runs.tasks_by_id, list(agents)):
            if row.settled and row.agent_id == agents[row.id]:
                self._let_forget(row.agent_id, row.id, row.output_size)

    # --- time ---

    async def _tick(self) -> None:
        now = time.monotonic()
        for task in list(self._wanted.values()):
            if not task.settled:
                self._look_after(task, now)
        if self._due():
            self._speak.set()

    def _look_after(self, task: ActiveTask, now: float) -> None:
        """State what was not heard of for long; give up, or say unknown, what cannot be reached in time."""
        silent = now - task.heard
        if not task.accepted and task.state is State.PENDING and task.run.late():
            reason, message = (
                (task.reason, task.message) if task.reason else _OFFLINE if self._connected else _NO_GATEWAY
            )
            if task.out_of_reach(reason, message, unknown_after=self._settings.unknown_after):
                self._recorder.note(task)
            if not task.settled:
                self._state(task)
        elif self._connected and silent > self._settings.restate_after:
            self._state(task)
        elif not self._connected and task.out_of_reach(*_NO_GATEWAY, unknown_after=self._settings.unknown_after):
            self._recorder.note(task)


def _end(report: agents_pb2.TaskReport) -> End:
    reason = _REASONS.get(report.end, Reason.EXITED)
    never_started = reason is Reason.CANCELED and not report.HasField("start_time")
    return End(
        reason, None if never_started else report.exit_status, report.signal, report.output_truncated,
        _time(report.start_time), _time(report.end_time),
    )  # fmt: skip


def _time(stamp: Timestamp) -> datetime | None:
    return host_time(stamp.seconds + stamp.nanos / 1e9)
