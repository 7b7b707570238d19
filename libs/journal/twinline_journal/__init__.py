"""The task journal: a script runs at most once on a host, and its files tell exactly how it went."""

from twinline_journal.journal import Journal, JournalError
from twinline_journal.mask import Masker
from twinline_journal.remote import (
    cancel_command,
    follow_command,
    forget_command,
    run_command,
    status_command,
    withdraw_command,
)
from twinline_journal.spec import MAX_OUTPUT, TaskSpec, check_task_id, frame
from twinline_journal.status import Reason, State, Status, parse_status

__all__ = [
    "MAX_OUTPUT",
    "Journal",
    "JournalError",
    "Masker",
    "Reason",
    "State",
    "Status",
    "TaskSpec",
    "cancel_command",
    "check_task_id",
    "follow_command",
    "forget_command",
    "frame",
    "parse_status",
    "run_command",
    "status_command",
    "withdraw_command",
]
