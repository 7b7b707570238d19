"""What a task is, and the frame that carries one to the runner."""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_OUTPUT = 64 * 1024 * 1024
SHORT = 1024
"""Bytes of a script up to which it travels as a line of text. A shell reads one without another process, but slowly."""

_TASK_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# bash is /bin/sh on many hosts and lets nobody set these
_READ_ONLY = frozenset({"BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"})
_PLAIN = frozenset(range(0x20, 0x7F)) - frozenset(b"'\\!")


def check_task_id(task_id: str) -> str:
    """Return the id, or raise ValueError when it is not `[a-z0-9][a-z0-9-]{0,63}`."""
    if not _TASK_ID.fullmatch(task_id):
        raise ValueError(f"task id {task_id!r} is not of [a-z0-9-], at most 64: choose another")
    return task_id


@dataclass(frozen=True)
class TaskSpec:
    """One script for one host. Raises ValueError for a value the runner could not honour.

    `timeout` and `kill_after` are seconds; past `timeout` the process group gets TERM, and KILL `kill_after` later.
    `max_output` is in bytes; what the script writes past it is dropped. The environment's values stay out of `repr`.
    """

    task_id: str
    script: bytes
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float | None = None
    kill_after: float = 10.0
    max_output: int = MAX_OUTPUT

    def __post_init__(self) -> None:
        check_task_id(self.task_id)
        for name, value in self.env.items():
            if not _NAME.fullmatch(name) or name in _READ_ONLY:
                raise ValueError(f"environment variable {name!r} cannot be set: choose another name")
            if "\0" in value:
                raise ValueError(f"environment variable {name!r} has a NUL byte: remove it")
        if self.timeout is not None and self.timeout <= 0:
            raise ValueError(f"timeout {self.timeout} is not positive: leave it out for no limit")
        if self.kill_after < 0 or self.max_output < 0:
            raise ValueError("kill_after and max_output cannot be negative")

    @property
    def digest(self) -> str:
        """SHA-256 of the script, hex."""
        return hashlib.sha256(self.script).hexdigest()


def frame(spec: TaskSpec) -> bytes:
    """Return what the runner reads on stdin: a line of limits, a line of environment, then the script.

    That is a line, too, or where it is not short its bytes as they are; in place of their number a line has `-`. The
    runner reads exactly that much, so stdin may stay open behind it.
    """
    short = len(spec.script) <= SHORT
    timeout = "-" if spec.timeout is None else str(max(1, math.ceil(spec.timeout * 100)))
    words = (
        "twinline-task",
        "1",
        spec.task_id,
        spec.digest,
        "-" if short else str(len(spec.script)),
        timeout,
        str(math.ceil(spec.kill_after * 100)),
        str(spec.max_output),
    )
    script = escape(spec.script) + b"\n" if short else spec.script
    return " ".join(words).encode() + b"\n" + escape(_exports(spec.env)) + b"\n" + script


def escape(data: bytes) -> bytes:
    """Return data as one ASCII line that `printf %b` turns back, safe in single quotes of any login shell."""
    return b"".join(bytes((byte,)) if byte in _PLAIN else b"\\0%03o" % byte for byte in data)


def _exports(env: Mapping[str, str]) -> bytes:
    lines = (f"export {name}='{_quoted(value)}'\n" for name, value in env.items())
    return "".join(lines).encode("utf-8", "surrogateescape")


def _quoted(value: str) -> str:
    return value.replace("'", "'\\''")
