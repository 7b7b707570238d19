"""The journal of this host: tasks started through the runner, everything else read from their files."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from time import time

from twinline_journal.remote import runner, runner_name
from twinline_journal.spec import TaskSpec, check_task_id, frame
from twinline_journal.status import State, Status, read_status

KEEP_FORGOTTEN = 7 * 86400.0
"""Seconds that a forgotten journal stays, so that a late second delivery finds it and runs nothing."""

KEEP_ENDED = 30 * 86400.0
"""Seconds that an ended journal stays which nobody forgot: the word was lost, or its sender is no more."""

KEEP_BYTES = 1 << 30
"""Bytes of all journals together, past which forgotten ones go earlier."""

_ENDED = frozenset({State.FINISHED, State.INTERRUPTED})


class JournalError(Exception):
    """The runner refused or could not do it; the message says why and what to do."""


class Journal:
    """Tasks of this host under `root`. Calls block on the disk and on short processes; use threads from async code."""

    def __init__(
        self,
        root: Path,
        *,
        shell: str = "/bin/sh",
        environ: Mapping[str, str] | None = None,
        patience: float = 60.0,
    ) -> None:
        """`shell` is a command that runs POSIX sh. The runner, not the scripts, has `environ`, by default our own.

        `patience`: seconds within which the runner must answer.
        """
        self._root = root.absolute()
        self._tasks = self._root / "tasks"
        self._shell = shell
        self._environ = environ
        self._patience = patience

    def start(self, spec: TaskSpec) -> Status:
        """Start the task once: a second call for its id runs nothing. Returns when the disk has the acceptance.

        Raises JournalError when the host cannot run it; nothing was started then.
        """
        status = self.status(spec.task_id)
        if status.state in (State.ABSENT, State.ACCEPTED):
            self._run("start", stdin=frame(spec))
            status = self.status(spec.task_id)
            if status.state is State.ABSENT:
                raise JournalError(f"the runner did nothing with task {spec.task_id}: look at the disk of this host")
        return status

    def status(self, task_id: str) -> Status:
        """Return what the task's files say; ABSENT for an unknown one."""
        return read_status(self._folder(task_id))

    def read(self, task_id: str, offset: int, limit: int) -> bytes:
        """Return at most `limit` bytes of output from byte `offset` on; empty when there are none (yet)."""
        size = min(limit, self.status(task_id).output_size - offset)
        if size <= 0:
            return b""
        with (self._folder(task_id) / "output").open("rb") as output:
            output.seek(offset)
            return output.read(size)

    def cancel(self, task_id: str) -> None:
        """End the task by TERM, then KILL after its grace, to its process group. One not started yet never starts."""
        if self.status(task_id).state not in _ENDED:
            self._run("cancel", check_task_id(task_id))

    def forget(self, task_id: str) -> None:
        """Let `sweep` drop an ended task. Raises JournalError for one that has not ended; an unknown one is fine."""
        state = self.status(task_id).state
        if state in _ENDED:
            (self._folder(task_id) / "forgotten").touch(mode=0o600)
        elif state is not State.ABSENT:
            raise JournalError(f"task {task_id} is {state}: cancel it first")

    def sweep(self, *, max_bytes: int = KEEP_BYTES) -> None:
        """Drop ended tasks that were kept long enough, then forgotten ones, oldest first, down to `max_bytes`.

        A delivery of a dropped task would run it again, so one that nobody forgot never goes for its size. What cannot
        be dropped now is left for the next time.
        """
        for left in self._root.glob("dropped-*"):  # of a sweep that was cut off
            shutil.rmtree(left, ignore_errors=True)
        ended = sorted((_age(folder), folder) for folder in self._folders() if _is_ended(folder))
        total = sum(map(_bytes, self._folders()))
        for age, folder in reversed(ended):
            forgotten = (folder / "forgotten").exists()
            if age > (KEEP_FORGOTTEN if forgotten else KEEP_ENDED) or (total > max_bytes and forgotten):
                total -= _bytes(folder)
                with suppress(OSError):
                    self._drop(folder)

    def _drop(self, folder: Path) -> None:
        # out of the way first: half a journal must never be seen
        dropped = self._root / f"dropped-{folder.name}.{os.getpid()}"
        folder.rename(dropped)
        shutil.rmtree(dropped, ignore_errors=True)

    def _folder(self, task_id: str) -> Path:
        return self._tasks / check_task_id(task_id)

    def _folders(self) -> Iterator[Path]:
        return self._tasks.iterdir() if self._tasks.is_dir() else iter(())

    def _run(self, *words: str, stdin: bytes = b"") -> None:
        environ = {**(os.environ if self._environ is None else self._environ)}
        environ |= {"TWINLINE_JOURNAL": str(self._root), "TWINLINE_SHELL": self._shell}
        command = [*shlex.split(self._shell), str(self._runner()), *words]
        try:
            done = subprocess.run(
                command, input=stdin, env=environ, capture_output=True, check=False, timeout=self._patience
            )
        except subprocess.TimeoutExpired:
            raise JournalError(f"the runner did not answer within {self._patience:g} s: look at the disk") from None
        if done.returncode != 0:
            text = done.stderr.decode(errors="replace").strip().removeprefix("twinline: ")
            raise JournalError(text or f"runner ended with status {done.returncode}")

    def _runner(self) -> Path:
        """The runner's file; tasks keep using theirs when this package is replaced under them."""
        path, text = self._root / runner_name(), runner()
        if not path.exists() or path.stat().st_size != len(text):  # a power cut can leave it empty
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            copy = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
            with os.fdopen(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            copy.replace(path)
        return path


def _is_ended(folder: Path) -> bool:
    try:
        return read_status(folder).state in _ENDED
    except OSError:  # one bad folder must not hide the others
        return False


def _age(folder: Path) -> float:
    for name in ("exit", "pid", "task", ""):
        with suppress(OSError):
            return time() - (folder / name).stat().st_mtime
    return 0.0


def _bytes(folder: Path) -> int:
    total = 0
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(FileNotFoundError):  # a script that just ended is tidied up
                total += path.lstat().st_size
    return total
