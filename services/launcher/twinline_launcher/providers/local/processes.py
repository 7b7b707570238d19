"""Processes of a machine: starting them apart from us, and finding every one of them again.

A process is named by its id and its start time, because ids are used again. All that a machine runs carries its name in
the environment; what lost that (OpenSSH overwrites its own) is found as a descendant of what did not.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MARKER = "TWINLINE_INSTANCE"
"""The environment variable that names the machine a process belongs to."""

_PROC = Path("/proc")
_ROUNDS = 200
_PAUSE = 0.02
_ZOMBIES = frozenset({"Z", "X", "x"})


@dataclass(frozen=True)
class Process:
    """One process. `start` is in clock ticks since the host's boot."""

    pid: int
    start: int

    def is_alive(self) -> bool:
        """Whether this very process runs; one that only waits to be reaped does not."""
        return (entry := _look(self.pid)) is not None and entry.process == self


@dataclass(frozen=True)
class _Entry:
    process: Process
    parent: int


class Children:
    """Starts processes that outlive us, and reaps those that end before."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, command: Sequence[str], *, env: Mapping[str, str], folder: Path, log: Path) -> Process:
        """Run `command` in a session of its own, with nothing of ours but `env`; its output is appended to `log`."""
        self.reap()
        with log.open("ab") as output:
            child = subprocess.Popen(
                list(command), env=dict(env), cwd=folder,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._started.append(child)
        entry = _look(child.pid)
        return entry.process if entry else Process(child.pid, 0)

    def reap(self) -> None:
        """Take note of those that ended."""
        self._started = [child for child in self._started if child.poll() is None]

    def release(self) -> None:
        """Forget those that still run: they go on without us."""
        for child in self._started:
            # Else Python warns that a process was left behind, which is what we want.
            child.returncode = 0 if child.poll() is None else child.returncode
        self._started.clear()


def boot_id() -> str:
    """Which boot of the host this is; processes of another one are gone, whatever their ids say."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def of_machine(name: str, known: Iterable[Process] = ()) -> list[Process]:
    """Every live process of the machine `name`: marked, `known` before, or descended from one of these."""
    table = {entry.process.pid: entry for entry in _all()}
    ours = {process.pid for process in known if process.pid in table and table[process.pid].process == process}
    ours |= {pid for pid in table if _is_marked(pid, name)}
    children: dict[int, list[int]] = {}
    for entry in table.values():
        children.setdefault(entry.parent, []).append(entry.process.pid)
    waiting = list(ours)
    while waiting:
        new = [pid for pid in children.get(waiting.pop(), ()) if pid not in ours]
        ours.update(new)
        waiting.extend(new)
    return [table[pid].process for pid in ours if pid != os.getpid()]


def below(of: Process) -> tuple[list[Process], list[Process]]:
    """The live children of a process, and all that is below these."""
    parents = {entry.process: entry.parent for entry in _all()}
    children = [each for each in of_machine("", [of]) if parents.get(each) == of.pid]
    return children, [each for each in of_machine("", children) if each not in children]


def end_machine(name: str, known: Iterable[Process] = ()) -> bool:
    """Cut the machine's power: kill all its processes, again until none is left. False when some would not go."""
    known = list(known)
    for _ in range(_ROUNDS):
        found = of_machine(name, known)
        if not found:
            return True
        for process in found:
            kill(process)
        time.sleep(_PAUSE)
    return not of_machine(name, known)


def end(process: Process) -> None:
    """Kill this very process and wait until it is gone, with all that it had open."""
    kill(process)
    for _ in range(_ROUNDS):
        if not process.is_alive():
            return
        time.sleep(_PAUSE)


def kill(process: Process) -> None:
    """Kill this very process; one that has its id now is left alone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    except OSError:  # a kernel without such handles: the check and the signal are then two steps
        if process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        return
    try:
        if process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
    finally:
        os.close(handle)


def _all() -> Iterable[_Entry]:
    for folder in _PROC.iterdir():
        if folder.name.isdigit() and (entry := _look(int(folder.name))):
            yield entry


def _look(pid: int) -> _Entry | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name comes in parentheses and may hold any of them, and spaces.
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in _ZOMBIES:
        return None
    return _Entry(Process(pid, int(fields[19])), parent=int(fields[1]))


def _is_marked(pid: int, name: str) -> bool:
    if not name:
        return False
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    return f"{MARKER}={name}".encode() in environment.split(b"\0")
