"""The line to v5 hosts: one stream to a gateway, on which this replica states what it wants of agents.

Stating is level-triggered: a task is stated again whenever a line in between was cut, and whenever nothing was heard
of it for a while. Until the host is known to have it, it is stated with the work; from then on without, which never
starts it.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from twinline.agent_gateway.v1 import agents_pb2, fleet_pb2
from twinline.agent_gateway.v1 import fleet_pb2_grpc as rpc
from twinline_executor.active import ActiveTask, End, host_time
from twinline_executor.agent_outbox import Outbox
from twinline_executor.reasons import TaskReason
from twinline_executor.recorder import Recorder
from twinline_executor.settings import Settings
from twinline_executor.states import Event, State
from twinline_executor.store.runs import RunStore
from twinline_journal import Reason
from twinline_kit.errors import Error
from twinline_kit.loops import backoff, end_if_cancelled, forever

log = logging.getLogger(__name__)

TICK = 1.0
UNCLAIMED = 5.0
"""Seconds in which a host is expected to start what is in its journal."""
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
_LATE = (TaskReason.REACHED_TOO_LATE, "the agent did not start the task before the time to reach hosts was over")
_NO_GATEWAY = (TaskReason.GATEWAY_UNAVAILABLE, "no agent gateway answers")

Call = grpc.aio.StreamStreamCall[fleet_pb2.DispatchRequest, fleet_pb2.DispatchResponse]


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
        self._outbox = Outbox(settings)
        self._again: dict[str, ActiveTask] = {}
        """To be stated with the next tick, not at once: an agent that answers wrongly may do so every time."""
        self._connected = False

    async def run(self) -> None:
        """Carry until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(forever("agent tasks", self._tick, every=TICK))
            if self._fleet is not None:
                group.create_task(self._dial(self._fleet))

    def carry(self, tasks: Iterable[ActiveTask]) -> None:
        """Take these tasks to their agents, or follow those that are there."""
        for task in tasks:
            if self._fleet is None:
                task.happen(Event.REFUSE if task.never_sent() else Event.INTERRUPT, *_NOT_CONFIGURED)
                self._recorder.note(task)
                continue
            self._wanted[task.id] = task
            self._by_agent.setdefault(task.agent_id, {})[task.id] = task
            self._outbox.state(task)

    def cancel(self, task: ActiveTask) -> None:
        """End a task on its host, or see that it never starts."""
        if task.never_sent():
            task.happen(Event.CANCEL)
            self._recorder.note(task)
            self.drop(task)
        elif task.id in self._wanted:
            self._outbox.state(task)

    def stored(self, task: ActiveTask, settled: bool) -> None:
        """What was known of the task is in the database, with its end or not: acknowledge it."""
        self._outbox.acknowledge(task, settled)
        if settled:
            self.drop(task)

    def drop(self, task: ActiveTask) -> None:
        """Another replica follows it now, or nobody needs to."""
        self._wanted.pop(task.id, None)
        self._outbox.drop(task)
        self._again.pop(task.id, None)
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
            end_if_cancelled()
            self._connected = False
            failures = 1 if time.monotonic() - opened > SETTLED else failures + 1
            await asyncio.sleep(backoff(failures))

    async def _talk(self, fleet: "rpc.FleetServiceAsyncStub") -> None:
        call = fleet.Dispatch()
        try:
            await call.write(fleet_pb2.DispatchRequest(hello=fleet_pb2.DispatchHello(dispatcher=self._replica)))
            self._connected = True
            for task in self._wanted.values():
                self._outbox.state(task)
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self._send(call))
                await self._receive(call)
                sending.cancel()
        finally:
            call.cancel()

    async def _send(self, call: Call) -> None:
        while True:
            await self._outbox.waiting.wait()
            self._outbox.waiting.clear()
            while request := self._outbox.next_request():
                await call.write(request)

    async def _receive(self, call: Call) -> None:
        async for response in call:
            strangers: list[tuple[str, str]] = []
            for heard in response.reports:
                for report in heard.reports:
                    if not self._heard(heard.agent_id, report):
                        strangers.append((heard.agent_id, report.task_id))
            for presence in response.presence:
                for task in self._by_agent.get(presence.agent_id, {}).values():
                    self._outbox.state(task)
            for absence in response.not_connected:
                self._not_connected(absence)
            if strangers:
                await self._answer_strangers(strangers)
            await self._recorder.room()

    # --- up ---

    def _heard(self, agent_id: str, report: agents_pb2.TaskReport) -> bool:
        """Whether the task is followed here. A report that fails is one agent's, and the stream is everybody's."""
        try:
            return self._hear(agent_id, report)
        except Exception:
            log.exception("report left out, as it failed", extra={"agent": agent_id, "task": report.task_id})
            return True

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
        else:
            before = (task.pending_bytes, task.state, task.reason)
            try:
                if not self._recorder.take_in(task, report.offset, report.data):
                    self._again[task.id] = task  # something in between was lost: from the stored end on, please
                elif not task.settled:
                    self._advance(task, report)
            finally:
                if task.settled or before != (task.pending_bytes, task.state, task.reason):
                    self._recorder.note(task)
        return True

    def _advance(self, task: ActiveTask, report: agents_pb2.TaskReport) -> None:
        complete = task.received >= report.output_size
        if report.state == TaskReport.STATE_FINISHED and complete:
            task.end(_end(report))
        elif report.state == TaskReport.STATE_INTERRUPTED and (
            complete or report.end == TaskReport.END_JOURNAL_UNREADABLE
        ):
            task.interrupted(_REASONS.get(report.end))
        else:
            task.is_on_host(_time(report, "start_time"), running=report.state != TaskReport.STATE_ACCEPTED)

    def _absent(self, task: ActiveTask) -> None:
        task.absent()
        self._note_or_state(task)

    def _rejected(self, task: ActiveTask, message: str) -> None:
        before = (task.state, task.reason)
        task.rejected(message)
        if before != (task.state, task.reason):
            self._recorder.note(task)
        if not task.settled:
            self._again[task.id] = task

    def _note_or_state(self, task: ActiveTask) -> None:
        if task.settled:
            self._recorder.note(task)
        else:
            self._again[task.id] = task

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
                task.happen(Event.REFUSE if task.never_sent() else Event.INTERRUPT, reason, message)
                self._recorder.note(task)
            elif task.out_of_reach(reason, message, unknown_after=self._settings.unknown_after):
                self._recorder.note(task)

    async def _answer_strangers(self, strangers: list[tuple[str, str]]) -> None:
        """An agent still holds tasks that were settled before: let it forget them."""
        agents = {task_id: agent_id for agent_id, task_id in strangers}
        try:
            rows = await asyncio.to_thread(self._runs.tasks_by_id, list(agents))
        except Exception:
            log.exception("tasks that agents still hold not looked up", extra={"tasks": len(agents)})
            return  # what nobody lets them forget goes by age
        for row in rows:
            if row.settled and row.agent_id == agents[row.id]:
                self._outbox.let_forget(row.agent_id, row.id, row.output_size)

    # --- time ---

    async def _tick(self) -> None:
        now = time.monotonic()
        for task in list(self._wanted.values()):
            if not task.settled:
                self._look_after(task, now)
        again, self._again = self._again, {}
        for task in again.values():
            self._outbox.state(task)
        if self._outbox.due():
            self._outbox.waiting.set()

    def _look_after(self, task: ActiveTask, now: float) -> None:
        """State what was not heard of for long; give up, or say unknown, what cannot be reached in time."""
        silent = now - task.heard
        if task.state is State.PENDING and not task.accepted and task.verdict is None and task.run.late():
            task.give_up(*(_LATE if self._connected else _NO_GATEWAY))
            self._note_or_state(task)
        elif self._connected and task.state is State.DELIVERED and silent > UNCLAIMED:
            self._start_again(task)
        elif self._connected and silent > self._settings.restate_after:
            self._outbox.state(task)
        elif not self._connected and task.out_of_reach(*_NO_GATEWAY, unknown_after=self._settings.unknown_after):
            self._recorder.note(task)

    def _start_again(self, task: ActiveTask) -> None:
        """Its host's journal has it, and nobody there starts it: whoever should have was ended in between."""
        task.unclaimed = True
        if not task.startable():
            task.give_up(*_LATE)
        self._note_or_state(task)


def _end(report: agents_pb2.TaskReport) -> End:
    reason = _REASONS.get(report.end, Reason.EXITED)
    never_started = reason in (Reason.CANCELED, Reason.TIMED_OUT) and not report.HasField("start_time")
    return End(
        reason, None if never_started else report.exit_status, report.signal, report.output_truncated,
        _time(report, "start_time"), _time(report, "end_time"),
    )  # fmt: skip


def _time(report: agents_pb2.TaskReport, field: Literal["start_time", "end_time"]) -> datetime | None:
    if not report.HasField(field):
        return None
    stamp: Timestamp = getattr(report, field)
    return host_time(stamp.seconds + stamp.nanos / 1e9)
