"""Why a task did not start, waits, or has an end that is not known: `Task.reason`. Match on these; `message` has words.

What another service refuses, or a run's own values, keeps the reason that the error had.
"""

from enum import StrEnum

from twinline_journal import Reason


class TaskReason(StrEnum):
    """The reasons that this service gives by itself."""

    # The SSH line.
    AUTH_REFUSED = "AUTH_REFUSED"
    HOST_KEY_MISMATCH = "HOST_KEY_MISMATCH"
    HOST_KEY_MALFORMED = "HOST_KEY_MALFORMED"
    ALGORITHMS_REFUSED = "ALGORITHMS_REFUSED"
    PORT_UNREACHABLE = "PORT_UNREACHABLE"
    CONNECTIONS_BUSY = "CONNECTIONS_BUSY"
    CONNECTION_LOST = "CONNECTION_LOST"
    CHANNEL_REFUSED = "CHANNEL_REFUSED"
    RUNNER_FAILED = "RUNNER_FAILED"
    HOST_SILENT = "HOST_SILENT"
    TARGET_DELETED = "TARGET_DELETED"
    # The agents' line.
    AGENT_NEVER_ENROLLED = "AGENT_NEVER_ENROLLED"
    AGENT_OFFLINE = "AGENT_OFFLINE"
    AGENT_REVOKED = "AGENT_REVOKED"
    AGENT_REJECTED = "AGENT_REJECTED"
    GATEWAY_NOT_CONFIGURED = "GATEWAY_NOT_CONFIGURED"
    GATEWAY_UNAVAILABLE = "GATEWAY_UNAVAILABLE"
    # Either line.
    KEYS_UNAVAILABLE = "KEYS_UNAVAILABLE"
    REACHED_TOO_LATE = "REACHED_TOO_LATE"
    EXECUTOR_FAILED = "EXECUTOR_FAILED"
    # What the host's journal says, or should have said.
    PROCESS_GONE = "PROCESS_GONE"
    HOST_REBOOTED = "HOST_REBOOTED"
    START_UNKNOWN = "START_UNKNOWN"
    JOURNAL_UNREADABLE = "JOURNAL_UNREADABLE"
    JOURNAL_LOST = "JOURNAL_LOST"
    OUTPUT_OVERRAN = "OUTPUT_OVERRAN"
    END_UNKNOWN = "END_UNKNOWN"


INTERRUPTIONS = {
    Reason.PROCESS_GONE: (
        TaskReason.PROCESS_GONE,
        "the script's process is gone and left no exit status; read the output, then run it again",
    ),
    Reason.HOST_REBOOTED: (
        TaskReason.HOST_REBOOTED,
        "the host was rebooted in mid-run; read the output, then run it again",
    ),
    Reason.START_UNKNOWN: (
        TaskReason.START_UNKNOWN,
        "the host stopped between marking and starting the script; it may have run",
    ),
    Reason.JOURNAL_UNREADABLE: (
        TaskReason.JOURNAL_UNREADABLE,
        "the script or its host's disk spoiled the journal: the end is not known; read the output, then run it again",
    ),
    None: (
        TaskReason.END_UNKNOWN,
        "the host says that the end will never be known, for a reason that only a newer version has words for",
    ),
}
"""Reason and message for each way in which a host's journal says that it will never know the end."""
