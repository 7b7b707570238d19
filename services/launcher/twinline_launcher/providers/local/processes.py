"""Processes of a machine: starting them apart from us, and finding every one of them again.

A process is named by its id and its start time, because ids are used again. All that a machine runs carries its name in
the environment. OpenSSH overwrites its own: its listener shows the name on its command line, and all of it still prints
to the machine's console. What lost even that is found as a descendant of what did not.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

MARKER = "TWINLINE_INSTANCE"
"""The environment variable that names the machine a process belongs to."""

SERVER_MARKER = "TWINLINE_SSHD"
"""The one that names the machine whose SSH server a process is, or starts."""

CONSOLE = "console"
"""The file in a machine's folder that its processes print to."""

_PROC = "/proc"
_PATIENCE = 4.0
_PAUSE = 0.02
_UMASK = 0o022
_ZOMBIES = frozenset({b"Z", b"X", b"x"})


@dataclass(frozen=True)
class Process:
    """One process. `start` is in clock ticks since the host's boot."""

    pid: int
    start: int

    def is_alive(self) -> bool:
        """Whether this very process runs; one that only waits to be reaped does not."""
        return (entry := _look(self.pid)) is not None and entry.process == self


UNKNOWN = Process(0, 0)
"""One that may have been started, and was not noted: it is never alive, and looked for by its marks."""


@dataclass(frozen=True)
class _Entry:
    process: Process
    parent: int


class Children:
    """Starts processes that outlive us, and reaps those that end before. Any thread may."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._released = False

    def start(self, command: Sequence[str], *, env: Mapping[str, str], folder: Path, log: Path) -> Process:
        """Run `command` in a session of its own, with nothing of ours but `env`; its output is appended to `log`."""
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            child = subprocess.Popen(
                list(command), env=dict(env), cwd=folder, umask=_UMASK,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(output)
        entry = _look(child.pid)  # before anybody can reap it: until then its id is its own
        with self._lock:
            self._started.append(child)
        if self._released:
            self.release()
        return entry.process if entry else Process(child.pid, 0)

    def reap(self) -> None:
        """Take note of those that ended."""
        with self._lock:
            self._started = [child for child in self._started if child.poll() is None]

    def release(self) -> None:
        """Forget those that still run, and those that are started yet: they go on without us."""
        with self._lock:
            self._released = True
            for child in self._started:
                # Else Python warns that a process was left behind, which is what we want.
                child.returncode = 0 if child.poll() is None else child.returncode
            self._started.clear()


def boot_id() -> str:
    """Which boot of the host this is; processes of another one are gone, whatever their ids say."""
    try:
        return Path(_PROC, "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def of_machine(name: str, known: Iterable[Process] = ()) -> list[Process]:
    """Every live process of the machine `name`: marked, `known` before, or descended from one of these."""
    table = _table()
    ours = {process.pid for process in known if process.pid in table and table[process.pid].process == process}
    ours |= {pid for pid in table if _is_of(pid, name)}
    return _with_descendants(table, ours)


def below(some: Iterable[Process]) -> list[Process]:
    """All live descendants of these, without themselves."""
    table, above = _table(), set(some)
    found = _with_descendants(table, {process.pid for process in above if process.is_alive()})
    return [process for process in found if process not in above]


def servers(name: str, watcher: Process | None = None) -> list[Process]:
    """What is the SSH server of the machine `name`, or starts it. Its sessions are not.

    A `watcher` that is alive has all of it below itself, which spares reading what every process of the host shows.
    """
    table = _table()
    if watcher and watcher.pid in table and table[watcher.pid].process == watcher:
        return [each.process for each in table.values() if watcher.pid in (each.process.pid, each.parent)]
    return [entry.process for pid, entry in table.items() if _is_server(pid, name)]


def end_machine(name: str, known: Iterable[Process] = ()) -> bool:
    """Cut the machine's power: kill all its processes, again until none is left. False when some would not go."""
    return _end(partial(of_machine, name, list(known)))


def end_servers(name: str, watcher: Process | None = None) -> bool:
    """Kill the machine's SSH server, whoever started it, and leave its sessions. False when it would not go."""
    return _end(partial(servers, name, watcher))


def _end(find: Callable[[], list[Process]]) -> bool:
    """Kill what is found until nothing is: what a process starts while it is killed is found the next time."""
    deadline = time.monotonic() + _PATIENCE
    while found := find():
        for process in found:
            kill(process)
        while any(process.is_alive() for process in found):
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        if time.monotonic() > deadline:
            return False
    return True


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


def _table() -> dict[int, _Entry]:
    """All live processes of this host but ourselves."""
    pids = (int(folder.name) for folder in Path(_PROC).iterdir() if folder.name.isdigit())
    return {pid: entry for pid in pids if pid != os.getpid() and (entry := _look(pid))}


def _with_descendants(table: Mapping[int, _Entry], ours: set[int]) -> list[Process]:
    children: dict[int, list[int]] = {}
    for entry in table.values():
        children.setdefault(entry.parent, []).append(entry.process.pid)
    found, waiting = set(ours), list(ours)
    while waiting:
        new = [pid for pid in children.get(waiting.pop(), ()) if pid not in found]
        found.update(new)
        waiting.extend(new)
    return [table[pid].process for pid in found]


def _look(pid: int) -> _Entry | None:
    # The name comes in parentheses and may hold any of them, and spaces.
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    if len(fields) < 20 or fields[0] in _ZOMBIES:
        return None
    return _Entry(Process(pid, int(fields[19])), parent=int(fields[1]))


def _is_of(pid: int, name: str) -> bool:
    if not name:
        return False
    return _has_mark(pid, MARKER, name) or _prints_to_console_of(pid, name)


def _is_server(pid: int, name: str) -> bool:
    return _has_mark(pid, SERVER_MARKER, name) or _is_listener(pid, name)


def _has_mark(pid: int, marker: str, name: str) -> bool:
    return f"{marker}={name}".encode() in _read(pid, "environ").split(b"\0")


def _prints_to_console_of(pid: int, name: str) -> bool:
    try:
        return str(Path(f"{_PROC}/{pid}/fd/2").readlink()).endswith(f"/{name}/{CONSOLE}")
    except OSError:
        return False


def _is_listener(pid: int, name: str) -> bool:
    # Only with OpenSSH's own title: whoever searches for the mark has it on the command line too.
    title = _read(pid, "cmdline")
    return title.startswith(b"sshd: ") and f"{MARKER}={name}".encode() in title.split()


def _read(pid: int, file: str) -> bytes:
    try:
        return Path(f"{_PROC}/{pid}/{file}").read_bytes()
    except OSError:
        return b""
