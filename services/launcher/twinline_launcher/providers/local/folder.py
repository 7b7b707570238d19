"""What the local cloud keeps of a machine: one folder, in it a record that is replaced as a whole."""

import fcntl
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from twinline_kit import files
from twinline_kit.errors import InvalidArgument, Unavailable
from twinline_launcher.errors import RecordUnreadable
from twinline_launcher.models import Generation
from twinline_launcher.providers.local.processes import CONSOLE, Process

log = logging.getLogger(__name__)

LOCK_PATIENCE = 5.0
"""Seconds that somebody waits for whoever else works at a machine."""

_LOCK_PAUSE = 0.02
_TOKEN = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_KEPT = frozenset({"machine.json", CONSOLE})
_TIMES = ("launch_time", "run_time", "end_time")

T = TypeVar("T")


class Busy(Unavailable):
    """Another process works at the machine."""


@dataclass(frozen=True)
class Record:
    """A machine on disk. Accepted when the record is there; started when it has a `run_time`."""

    token: str
    name: str = ""
    generation: int = Generation.V4
    image: str = ""
    instance_type: str = ""
    security_groups: tuple[str, ...] = ()
    boot_id: str = ""
    port: int = 0
    host_key: str = ""
    body: Process | None = None
    """Lives as long as the machine does."""
    sshd: Process | None = None
    """None only when there is none, whoever died meanwhile."""
    strays: tuple[Process, ...] = ()
    """SSH sessions that outlived the listener they came through."""
    launch_time: datetime | None = None
    run_time: datetime | None = None
    end_time: datetime | None = None

    def processes(self) -> list[Process]:
        """Every process that was recorded, alive or not."""
        return [process for process in (self.body, self.sshd, *self.strays) if process]


@dataclass(frozen=True)
class Folder:
    """The folder of one machine."""

    path: Path
    token: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "token", self.path.name)

    @classmethod
    def of(cls, instances: Path, token: str) -> "Folder":
        """The folder for `token`, which becomes its name."""
        if not _TOKEN.fullmatch(token):
            raise InvalidArgument("token of a machine must be lower-case letters, digits and dashes", field="token")
        return cls(instances / token)

    @property
    def home(self) -> Path:
        """The machine's home directory."""
        return self.path / "home"

    @property
    def console(self) -> Path:
        """What its processes print."""
        return self.path / CONSOLE

    @property
    def user_data(self) -> Path:
        """What it was given at launch."""
        return self.path / "user-data.json"

    @contextmanager
    def locked(self, patience: float = LOCK_PATIENCE) -> Iterator[None]:
        """Be the only one, of all processes, who changes this machine. Raises Busy after `patience` seconds."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not flock's own waiting: it has no end, and the thread that waits is one of few.
        deadline = time.monotonic() + patience
        while (descriptor := _taken(self._lock)) is None:
            if time.monotonic() >= deadline:
                raise Busy(f"another process works at {self.path}: it is asked again", folder=str(self.path))
            time.sleep(_LOCK_PAUSE)
        try:
            yield
        finally:
            os.close(descriptor)

    def read(self) -> Record | None:
        """The record; None when no machine was accepted. Raises RecordUnreadable when it is spoilt."""
        way_out = "or delete it: the machine then counts as vanished, and is ended"
        return read_json(self.path / "machine.json", _load, way_out)

    def write(self, record: Record, **changes: Any) -> Record:
        """Replace the record as a whole, on the disk when this returns."""
        record = replace(record, **changes)
        self.write_file("machine.json", json.dumps(_dump(record), indent=1).encode())
        return record

    def write_file(self, name: str, content: bytes) -> Path:
        """Let a private file appear complete."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.path / name
        files.write_private(path, content)
        return path

    def clear(self) -> None:
        """Delete all but the bill and the console: keys, tokens and journals go with the machine."""
        for each in list(self.path.iterdir()):
            if each.name in _KEPT:
                continue
            if each.is_dir() and not each.is_symlink():
                _remove(each)
            else:
                each.unlink(missing_ok=True)

    def delete(self) -> None:
        """Delete all that there is, the lock too. Only by who has locked it."""
        _remove(self.path)
        self._lock.unlink(missing_ok=True)

    @property
    def _lock(self) -> Path:
        return self.path.with_name(f".{self.token}.lock")


def _remove(path: Path) -> None:
    """Delete a folder, as far as can be: the rest of it is deleted all the same."""
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        log.warning("folder of a machine not deleted: look at its permissions", extra={"folder": str(path)})


def read_json(file: Path, made_of: Callable[[Any], T], way_out: str) -> T | None:
    """What is made of a JSON file; None when there is none. RecordUnreadable, with the way out, when it is spoilt."""
    try:
        return made_of(json.loads(file.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        text = f"{file} is spoilt ({type(error).__name__}: {error}): restore it, {way_out}"
        raise RecordUnreadable(text, file=str(file)) from error


def _taken(path: Path) -> int | None:
    """An open file that holds the lock, or None: another one holds it, or deleted its file just now."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def all_folders(instances: Path) -> list[Folder]:
    """The folder of every machine that there is, and of those that ended not long ago."""
    if not instances.is_dir():
        return []
    return [Folder(path) for path in sorted(instances.iterdir()) if (path / "machine.json").exists()]


def _dump(record: Record) -> dict[str, Any]:
    content = asdict(record)
    for name in _TIMES:
        content[name] = content[name].isoformat() if content[name] else None
    return content


def _load(content: dict[str, Any]) -> Record:
    for name in _TIMES:
        content[name] = datetime.fromisoformat(content[name]) if content[name] else None
    for name in ("body", "sshd"):
        content[name] = Process(**content[name]) if content[name] else None
    content["strays"] = tuple(Process(**each) for each in content["strays"])
    content["security_groups"] = tuple(content["security_groups"])
    return Record(**content)
