"""Steps as runs of the executor, each on the one machine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import grpc.aio

from twinline.executor.v1 import runs_pb2 as pb
from twinline.executor.v1 import runs_pb2_grpc as rpc
from twinline.executor.v1 import scripts_pb2, scripts_pb2_grpc
from twinline_kit import telemetry
from twinline_kit.errors import Error, NotFound
from twinline_kit.times import duration
from twinline_launcher import inputs
from twinline_launcher.models import Instance
from twinline_launcher.steps import Step, StepState
from twinline_launcher.stranding import Failure, Reason

_NOTHING = ":"
_GOES_ON = {
    pb.Task.STATE_PENDING: StepState.PENDING,
    pb.Task.STATE_DELIVERED: StepState.DELIVERED,
    pb.Task.STATE_RUNNING: StepState.RUNNING,
}
_LEAST = timedelta(seconds=1)
_LONGEST = timedelta(days=30)
"""What the executor takes for a script: a list may have more."""


@dataclass(frozen=True)
class Limits:
    """Of one run."""

    timeout: timedelta
    reach: timedelta


@dataclass(frozen=True)
class GoingOn:
    """A run that is not over, or not known to be."""

    state: StepState = StepState.PENDING
    reason: str = ""
    lost: Failure | None = None
    """Why its end cannot be told now. It will be once the machine is back: the script may be at work all the time."""


@dataclass(frozen=True)
class Ended:
    """A run that is over; without a failure it succeeded."""

    failure: Failure | None = None


class Runs:
    """Starts runs and tells how they ended."""

    def __init__(self, executor: grpc.aio.Channel) -> None:
        self._runs = rpc.RunServiceStub(executor)
        self._scripts = scripts_pb2_grpc.ScriptServiceStub(executor)

    async def start(self, machine: Instance, which: str, index: int, step: Step, limits: Limits) -> str:
        """Start the run of a step's present attempt, or find it; returns its id. Raises what the executor refuses."""
        request = pb.StartRunRequest(
            request_id=f"{machine.id}/{which}/{index}/{step.attempt}",
            targets=[machine.id],
            inputs=inputs.given_to(step.inputs, machine.inputs),
            timeout=duration(min(max(limits.timeout, _LEAST), _LONGEST)),
            reach_timeout=duration(max(limits.reach, _LEAST)),
        )
        if step.script:
            request.script, request.revision = step.script, step.revision
        else:
            request.command = _NOTHING
        with _joined({telemetry.TRACEPARENT: machine.traceparent}):
            run = await self._runs.StartRun(request)
        return run.id

    async def result(self, step: Step) -> GoingOn | Ended:
        """How the run of a step's present attempt ended, or where its task stands."""
        try:
            tasks = (await self._runs.ListTasks(pb.ListTasksRequest(run=step.run, page_size=1))).tasks
        except NotFound:
            return Ended(Failure(Reason.OUTCOME_UNKNOWN, f"the executor knows no run {step.run} any more"))
        if not tasks:
            return GoingOn()
        task, state = tasks[0], _GOES_ON.get(tasks[0].state)
        if state is not None:
            return GoingOn(state, task.reason)
        if task.state == pb.Task.STATE_UNKNOWN and not task.settled:
            return GoingOn(StepState.UNKNOWN, task.reason, lost=_failure(task, step))
        return Ended(_failure(task, step))

    async def newest_revision(self, script: str) -> int:
        """The newest revision of a script; 0 when it cannot be told now."""
        try:
            return (await self._scripts.GetScript(scripts_pb2.GetScriptRequest(name=script))).revision
        except Error:
            return 0

    async def cancel(self, run: str) -> None:
        """Stop the run, if it goes on."""
        await self._runs.CancelRun(pb.CancelRunRequest(run=run))


def _failure(task: pb.Task, step: Step) -> Failure | None:
    ended = f"script {step.title}" if step.script else "the connection test"
    if task.state == pb.Task.STATE_SUCCEEDED:
        return None
    if task.state == pb.Task.STATE_FAILED:
        how = f"was ended by signal {task.signal}" if task.signal else f"ended with exit status {task.exit_status}"
        return Failure(Reason.SCRIPT_FAILED, f"{ended} {how}")
    said = f": {task.message}" if task.message else ""
    if task.state == pb.Task.STATE_TIMED_OUT:
        return Failure(Reason.SCRIPT_TIMED_OUT, f"{ended} was ended by its time limit{said}")
    if task.state == pb.Task.STATE_CANCELED:
        return Failure(Reason.SCRIPT_CANCELED, f"{ended} was canceled{said}")
    if task.state == pb.Task.STATE_UNKNOWN:
        return Failure(Reason.OUTCOME_UNKNOWN, f"{ended} was started, and how it ended cannot be told{said}")
    return Failure(task.reason or _word(task).upper(), task.message or f"{ended} never started")


def _word(task: pb.Task) -> str:
    """The state of a task as people read it: `pending`."""
    return pb.Task.State.Name(task.state).removeprefix("STATE_").lower()


@contextmanager
def _joined(carrier: Mapping[str, str]) -> Iterator[None]:
    """Do what is done within as part of the launch's trace, where there is one."""
    if not telemetry.is_on() or not carrier[telemetry.TRACEPARENT]:
        yield
        return
    with telemetry.serving_span("launcher step", carrier):
        yield
