"""The journal of this host: tasks started through the runner, everything else read from their files."""

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from twinline_journal.remote import runner, runner_name
from twinline_journal.spec import TaskSpec, check_task_id, frame
from twinline_journal.status import State, Status, open_plain, read_status

KEEP_BYTES = 1 << 30
"""Bytes of all journals together, past which the output of forgotten ones goes before their time."""

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

        Raises JournalError when the host cannot run it; nothing was started then, unless the runner did not answer in
        time: `status` tells.
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
        """Return at most `limit` bytes of output from byte `offset` on; empty when there are none (yet).

        Raises FileNotFoundError or ValueError when a script removed its output, or put something else there, and
        FileNotFoundError when `sweep` dropped it.
        """
        size = min(limit, self.status(task_id).output_size - offset)
        if size <= 0:
            return b""
        with open_plain(self._folder(task_id) / "output") as output:
            output.seek(offset)
            return output.read(size)

    def cancel(self, task_id: str) -> None:
        """End the task by TERM, then KILL after its grace, to its process group. One not started yet never starts."""
        if self.status(task_id).state not in _ENDED:
            self._run("cancel", check_task_id(task_id))

    def withdraw(self, task_id: str) -> None:
        """See that the task never starts, also when it is delivered later; one that has started is let alone."""
        if self.status(task_id).state in (State.ABSENT, State.ACCEPTED):
            self._run("withdraw", check_task_id(task_id))

    def forget(self, task_id: str) -> None:
        """Let `sweep` drop an ended task. Raises JournalError for one that has not ended; an unknown one is fine."""
        state = self.status(task_id).state
        if state in _ENDED:
            (self._folder(task_id) / "forgotten").touch(mode=0o600)
        elif state is not State.ABSENT:
            raise JournalError(f"task {task_id} is {state}: cancel it first")

    def sweep(self, *, max_bytes: int = KEEP_BYTES) -> None:
        """Drop what was kept long enough: forgotten tasks a week, others that ended 30 days.

        A delivery of a dropped task would run it again, so for their size only scripts and output of forgotten ones go
        sooner: such a task is told as before, and `read` raises FileNotFoundError. Raises JournalError when it takes
        too long; what was not dropped is left for the next time.
        """
        if self._tasks.is_dir():
            self._run("sweep", str(max_bytes >> 10))

    def _folder(self, task_id: str) -> Path:
        return self._tasks / check_task_id(task_id)

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
