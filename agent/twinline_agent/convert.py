"""Between the stream's messages and the journal's values."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline_journal import MAX_OUTPUT, Reason, State, Status, TaskSpec

MAX_SCRIPT = 4 << 20
MAX_ENV = 1 << 20
"""Bytes of a task's environment, names and values: no less than what the gateway lets through."""

_KILL_AFTER = 10.0

_STATES = {
    State.ABSENT: pb.TaskReport.STATE_ABSENT,
    State.ACCEPTED: pb.TaskReport.STATE_ACCEPTED,
    State.RUNNING: pb.TaskReport.STATE_RUNNING,
    State.FINISHED: pb.TaskReport.STATE_FINISHED,
    State.INTERRUPTED: pb.TaskReport.STATE_INTERRUPTED,
}
_ENDS = {
    None: pb.TaskReport.END_UNSPECIFIED,
    Reason.EXITED: pb.TaskReport.END_EXITED,
    Reason.SIGNALED: pb.TaskReport.END_SIGNALED,
    Reason.TIMED_OUT: pb.TaskReport.END_TIMED_OUT,
    Reason.CANCELED: pb.TaskReport.END_CANCELED,
    Reason.PROCESS_GONE: pb.TaskReport.END_PROCESS_GONE,
    Reason.HOST_REBOOTED: pb.TaskReport.END_HOST_REBOOTED,
    Reason.START_UNKNOWN: pb.TaskReport.END_START_UNKNOWN,
    Reason.JOURNAL_UNREADABLE: pb.TaskReport.END_JOURNAL_UNREADABLE,
}


def to_spec(delivery: pb.Delivery) -> TaskSpec:
    """The task that `delivery` asks for. Raises ValueError, which says what is wrong with it."""
    work = delivery.work
    if len(work.script) > MAX_SCRIPT:
        raise ValueError(f"the script has {len(work.script)} bytes, more than {MAX_SCRIPT}: make it smaller")
    if sum(len(name.encode()) + len(value.encode()) for name, value in work.env.items()) > MAX_ENV:
        raise ValueError(f"the environment has more than {MAX_ENV} bytes: make it smaller")
    return TaskSpec(
        delivery.task_id,
        work.script,
        dict(work.env),
        timeout=_seconds(work.timeout) if work.HasField("timeout") else None,
        kill_after=_seconds(work.kill_after) if work.HasField("kill_after") else _KILL_AFTER,
        max_output=work.max_output or MAX_OUTPUT,
    )


def tellable(status: Status) -> Status:
    """`status`, unless a script wrote numbers into its journal that no report can hold: then the end is not known."""
    try:
        to_report(status)
    except (ValueError, OverflowError):
        return Status(status.task_id, State.INTERRUPTED, Reason.JOURNAL_UNREADABLE)
    return status


def to_report(status: Status) -> pb.TaskReport:
    """What the journal says of a task, without output."""
    return pb.TaskReport(
        task_id=status.task_id,
        state=_STATES[status.state],
        end=_ENDS[status.reason],
        exit_status=status.exit_status or 0,
        signal=status.signal or 0,
        output_size=status.output_size,
        output_truncated=status.truncated,
        start_time=_moment(status.started),
        end_time=_moment(status.ended),
    )


def rejected(task_id: str, why: str) -> pb.TaskReport:
    """The report of a task that could not be accepted."""
    return pb.TaskReport(task_id=task_id[:64], state=pb.TaskReport.STATE_REJECTED, message=why[:1000])


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9


def _moment(seconds: float | None) -> Timestamp | None:
    if seconds is None:
        return None
    moment = Timestamp()
    moment.FromNanoseconds(int(seconds * 1e9))
    return moment
