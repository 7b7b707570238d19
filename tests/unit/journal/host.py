"""A host to run tasks on: a journal in a temporary folder and a `sh` of choice."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.peers.eventually import eventually
from twinline_journal import Journal, State, Status, TaskSpec, frame, parse_status, status_command

ENDED = (State.FINISHED, State.INTERRUPTED)
TOOLS = (
    "awk",
    "cat",
    "date",
    "dd",
    "du",
    "env",
    "find",
    "head",
    "id",
    "ls",
    "mkdir",
    "mkfifo",
    "mv",
    "perl",
    "rm",
    "rmdir",
    "setsid",
    "sleep",
)


class Host:
    """Its journal, as this process sees it, and its command lines, as an SSH server runs them."""

    def __init__(self, folder: Path, shell: str, *, tools: Path | None = None) -> None:
        self.folder = folder
        self.root = folder / "the journal"
        (folder / "bin").mkdir(parents=True)
        sh = folder / "bin" / "sh"
        sh.symlink_to(shell)
        self.environ = dict(os.environ)
        self.environ["PATH"] = f"{sh.parent}:{tools or self.environ['PATH']}"
        self.environ["TWINLINE_JOURNAL"] = str(self.root)
        self._opened: list[subprocess.Popen[bytes]] = []
        self.journal = Journal(self.root, shell=str(sh), environ=self.environ)

    def start(self, script: str | bytes, task_id: str = "task-1", **limits: float) -> Status:
        return self.journal.start(spec(script, task_id, **limits))

    async def ended(self, task_id: str = "task-1") -> Status:
        return await eventually(lambda: self._ended(task_id), within=20)

    async def run(self, script: str | bytes, task_id: str = "task-1", **limits: float) -> Status:
        self.start(script, task_id, **limits)
        return await self.ended(task_id)

    async def run_through(self, script: str | bytes, task_id: str = "task-1") -> Status:
        """Run it until its supervisor is gone, too, which tidies up after the end is told."""
        ended = await self.run(script, task_id)
        supervisor = self.supervisor(task_id)
        await eventually(lambda: not alive(supervisor))
        return ended

    async def run_all(self, scripts: Sequence[str | bytes]) -> list[Status]:
        """Run them at once, as task-0, task-1 and so on."""
        for number, script in enumerate(scripts):
            self.start(script, f"task-{number}")
        return [await self.ended(f"task-{number}") for number in range(len(scripts))]

    async def said(self, text: bytes, task_id: str = "task-1") -> None:
        await eventually(lambda: text in self.output(task_id))

    def output(self, task_id: str = "task-1") -> bytes:
        return self.journal.read(task_id, 0, 1 << 30)

    def file(self, name: str, task_id: str = "task-1") -> Path:
        return self.root / "tasks" / task_id / name

    def remote(self, command: str, stdin: bytes = b"", shell: str = "sh") -> subprocess.CompletedProcess[bytes]:
        words = [shell, "-c", command]
        return subprocess.run(words, input=stdin, capture_output=True, env=self.environ, timeout=60, check=False)

    def popen(self, command: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(["sh", "-c", command], stdin=pipe, stdout=pipe, stderr=pipe, env=self.environ)
        self._opened.append(process)
        return process

    def told(self, task_id: str = "task-1") -> Status:
        """The status by the runner; this process's own reading must be the same."""
        status = last_status(self.remote(status_command(task_id)).stderr)
        assert status == self.journal.status(task_id)
        return status

    def kept(self) -> list[str]:
        """The ids of the tasks in the journal."""
        return sorted(path.name for path in self.root.glob("tasks/*"))

    def supervisor(self, task_id: str = "task-1") -> int:
        return self.mark("supervisor", task_id)

    def mark(self, who: str, task_id: str = "task-1") -> int:
        """The process that the journal names: `supervisor`, `watchdog`, or the script's `group`."""
        lines = map(str.split, self.file("pid", task_id).read_text().splitlines())
        return next(int(words[1]) for words in lines if words[0] == who)

    def processes(self) -> list[int]:
        """Every process of this host, by its command line or its working directory."""
        return [pid for pid in pids() if self._mine(pid)]

    def clean(self) -> None:
        """End whatever is left; a test that failed leaves much."""
        for process in self._opened:
            process.kill()
            for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
                with suppress(BrokenPipeError):
                    pipe.close()
            process.wait()
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _ended(self, task_id: str) -> Status:
        status = self.journal.status(task_id)
        assert status.state in ENDED, status
        return status

    def _mine(self, pid: int) -> bool:
        return str(self.folder).encode() in command_line(pid) or str(self.folder) in _working_directory(pid)


def spec(script: str | bytes, task_id: str = "task-1", **limits: float) -> TaskSpec:
    text = script.encode() if isinstance(script, str) else script
    max_output = int(limits.pop("max_output", 64 << 20))
    return TaskSpec(task_id, text, max_output=max_output, **limits)  # type: ignore[arg-type]  # floats are all that is left


def framed(script: str | bytes, task_id: str = "task-1") -> bytes:
    return frame(spec(script, task_id))


def last_status(stderr: bytes) -> Status:
    return [status for line in stderr.splitlines() if (status := parse_status(line))][-1]


def pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def alive(pid: int) -> bool:
    """Whether there is such a process, zombies not counted."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] != b"Z"
    except OSError:
        return False


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _working_directory(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/cwd").readlink())
    except OSError:
        return ""
