"""What a task's files say about it, read in process or told by the runner in a status line."""

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from time import sleep
from typing import BinaryIO

from twinline_journal.spec import check_task_id

_PREFIX = b"twinline-status "
_MOST = 64 << 10
"""Bytes of a record that are read; ours have less than one KiB."""
_RECORD = ("reason", "status", "signal", "size", "dropped", "started", "ended")


class State(StrEnum):
    """Where a task is on its host. FINISHED and INTERRUPTED are final; `Reason` says why."""

    ABSENT = "absent"
    ACCEPTED = "accepted"
    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"


class Reason(StrEnum):
    """Why a task is final. The first four are of a FINISHED one, the others of one whose end will never be known."""

    EXITED = "exited"
    SIGNALED = "signaled"
    TIMED_OUT = "timed_out"
    CANCELED = "canceled"
    PROCESS_GONE = "process_gone"
    HOST_REBOOTED = "host_rebooted"
    START_UNKNOWN = "start_unknown"
    JOURNAL_UNREADABLE = "journal_unreadable"


@dataclass(frozen=True)
class Status:
    """A task as its host knows it.

    `reason` is None until the task is final. `exit_status` is 128 + n after signal n (`signal` is then n), and None for
    a task that was ended before its script ran. Times are seconds since the epoch by the host's clock, sizes are bytes.
    """

    task_id: str
    state: State
    reason: Reason | None = None
    exit_status: int | None = None
    signal: int | None = None
    output_size: int = 0
    started: float | None = None
    ended: float | None = None
    truncated: bool = False


def parse_status(line: bytes) -> Status | None:
    """Read one line of the runner's stderr; None when it is anything else, such as what a login shell says."""
    _, found, text = line.rstrip(b"\r\n").rpartition(_PREFIX)
    if not found:
        return None
    try:
        words = dict(word.split("=", 1) for word in text.decode("ascii").split())
        return _status(check_task_id(words["id"]), State(words["state"]), words)
    except (KeyError, ValueError):
        return None


def read_status(folder: Path) -> Status:
    """Read the status of the task whose journal is `folder`. Raises OSError when the disk does not answer."""
    if not folder.is_dir():
        return Status(folder.name, State.ABSENT)
    try:
        return _finished(folder) or _unfinished(folder)
    except (ValueError, LookupError):
        # A script can write there too: what is no record of ours says only that the end is not known.
        return Status(folder.name, State.INTERRUPTED, Reason.JOURNAL_UNREADABLE)


def _finished(folder: Path) -> Status | None:
    record, whole, _ = (_record(folder / "exit") or "").partition("\n")
    if not whole:
        return None
    words = dict(word.split("=", 1) for word in record.split())
    return _status(folder.name, State.FINISHED, {name: words[name] for name in _RECORD})


def _unfinished(folder: Path) -> Status:
    limits = (_record(folder / "task") or "").split()
    marks = _marks(folder)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip() or "0"
    known_boot = marks["supervisor"][2] if marks else limits[5] if len(limits) > 5 else boot
    state: State = State.ACCEPTED
    reason: Reason | None = None
    if known_boot != boot:
        state, reason = State.INTERRUPTED, Reason.HOST_REBOOTED
    elif marks and "group" in marks:
        # Whose supervisor was killed runs until the watchdog has seen to its last output.
        alive = any(_alive(marks.get(who)) for who in ("group", "supervisor", "watchdog"))
        state, reason = (State.RUNNING, None) if alive else (State.INTERRUPTED, Reason.PROCESS_GONE)
    elif marks is not None and not _alive(marks.get("supervisor")):
        state, reason = State.INTERRUPTED, Reason.START_UNKNOWN
    if state is State.INTERRUPTED and (finished := _finished(folder)):  # it was written while we looked
        return finished
    size = _size(folder / "output")
    if len(limits) > 4:
        size = min(size, int(limits[4]))
    started = float(marks["group"][2]) if marks and "group" in marks else None
    return Status(folder.name, state, reason, output_size=size, started=started)


def _marks(folder: Path) -> dict[str, list[str]] | None:
    """The lines of `pid` by their first word; None without such a file, {} while its first line is missing."""
    for _ in range(50):  # created, but its line not written yet
        if (text := _record(folder / "pid")) is None:
            return None
        if lines := text.splitlines():
            break
        sleep(0.01)
    marks = {words[0]: words[1:] for words in map(str.split, lines) if len(words) >= 4}
    return marks if "supervisor" in marks else {}


def _alive(mark: list[str] | None) -> bool:
    """Whether the very process of the mark is there: same number, same start time, no zombie."""
    if mark is None:
        return False
    try:
        stat = Path("/proc", mark[0], "stat").read_bytes()
    except OSError:
        return False
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name in brackets may hold anything
    gone = fields[0] == b"X" or (fields[0] == b"Z" and int(fields[17]) <= 1)  # its first thread may end before others
    return not gone and fields[19].decode() == mark[1]


def _status(task_id: str, state: State, words: Mapping[str, str]) -> Status:
    return Status(
        task_id,
        state,
        Reason(words["reason"]) if words.get("reason") else None,
        exit_status=int(words["status"]) if words.get("status") else None,
        signal=int(words.get("signal") or 0) or None,
        output_size=int(words.get("size") or 0),
        started=float(words["started"]) if words.get("started") else None,
        ended=float(words["ended"]) if words.get("ended") else None,
        truncated=int(words.get("dropped") or 0) > 0,
    )


def open_plain(path: Path) -> BinaryIO:
    """Open a file of the journal for reading, as it is: a script can put a pipe, a device or a link in its place.

    Raises FileNotFoundError, or ValueError when it is no regular file; never waits for a writer.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise ValueError(f"{path} is no file of ours") from None
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise ValueError(f"{path} is no file of ours")
    return os.fdopen(number, "rb")


def _record(path: Path) -> str | None:
    try:
        with open_plain(path) as file:
            return file.read(_MOST).decode()
    except FileNotFoundError:
        return None


def _size(path: Path) -> int:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
