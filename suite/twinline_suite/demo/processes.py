"""Which processes on this machine belong to a home: the suite, its instances, and whatever they started."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_PAUSE = 0.05
_KILL_LIMIT = 10.0


def of_home(home: Path) -> list[int]:
    """Ids of live processes that name `home` in their arguments or environment, work in it, or hold its files open.

    ValueError for a path that is not absolute, or is a root: it would be found everywhere.
    """
    if not home.is_absolute() or home == home.parent:
        raise ValueError(f"{str(home)!r} is no folder of a home: give an absolute path below the root")
    named = re.compile(re.escape(os.fsencode(home)) + rb"(?![\w.-])")
    return [pid for pid in _pids() if pid != os.getpid() and _is_alive(pid) and any(map(named.search, _traces(pid)))]


def gone(home: Path, *, within: float) -> list[int]:
    """What is left of `of_home` once it is empty, or after `within` seconds."""
    deadline = time.monotonic() + within
    while (left := of_home(home)) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    return left


def kill(home: Path) -> None:
    """End every process of the home, whatever it does; again and again, since some are there to start others anew."""
    deadline = time.monotonic() + _KILL_LIMIT
    while (left := of_home(home)) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE)


def _pids() -> Iterator[int]:
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            yield int(entry.name)


def _is_alive(pid: int) -> bool:
    """A zombie is not: it only waits to be counted."""
    try:
        status = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return False
    return status.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def _traces(pid: int) -> Iterator[bytes]:
    """Everything that tells where a process belongs. sshd writes over its arguments and environment, so look wider."""
    folder = _PROC / str(pid)
    for name in ("cmdline", "environ"):
        with suppress(OSError):
            yield (folder / name).read_bytes()
    with suppress(OSError):
        yield bytes((folder / "cwd").readlink())
    with suppress(OSError):
        for link in (folder / "fd").iterdir():
            with suppress(OSError):
                yield bytes(link.readlink())
