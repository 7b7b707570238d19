"""One channel of one task: output on its standard output, status lines on its standard error."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator

import asyncssh

from twinline_executor.active import ActiveTask, End, host_time
from twinline_executor.environment import task_env
from twinline_executor.reasons import TaskReason
from twinline_executor.recorder import Recorder
from twinline_executor.settings import Settings
from twinline_executor.ssh_connections import PooledConnection
from twinline_executor.ssh_login import LineDown
from twinline_executor.states import State as TaskState
from twinline_journal import Reason, State, Status, TaskSpec, follow_command, frame, parse_status, run_command

log = logging.getLogger(__name__)

CHUNK = 64 * 1024
LINE = 8 * 1024
"""Longest status line; the rest of a longer one is dropped."""
NOISE = 64 * 1024
"""Bytes that a login shell may print before our command speaks."""

Process = asyncssh.SSHClientProcess[bytes]


class Attendance:
    """Delivers or follows a task through one channel."""

    def __init__(self, task: ActiveTask, kept: PooledConnection, recorder: Recorder, settings: Settings) -> None:
        self._task = task
        self._kept = kept
        self._recorder = recorder
        self._settings = settings
        self._marker = f"twinline-{secrets.token_hex(8)}".encode()
        self._position = task.received
        self._last: Status | None = None
        self._noise = b""
        self._cut: Exception | None = None
        self._patience = asyncio.timeout(None)
        self._waits = False

    async def attend(self) -> None:
        """Run or follow the task until the channel ends.

        Raises LineDown when the host's journal could not be asked, or the host fell silent.
        """
        task = self._task
        deliver = task.startable()
        answered = False
        try:
            async with self._patience:
                self._heed()
                process = await self._open(deliver)
                answered = True
                await self._converse(process, deliver=deliver)
        except TimeoutError:
            if not answered:
                self._kept.connection.abort()
            raise _silent(self._settings.ssh_silence) from None
        self._conclude(process)

    async def _converse(self, process: Process, *, deliver: bool) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                if deliver:
                    group.create_task(self._write(process, frame(self._spec())))
                group.create_task(self._read_status(process))
                group.create_task(self._read_output(process))
            if self._last is None and self._cut is None:
                await process.wait_closed()  # for its exit status, which says that something else ran
        finally:
            process.channel.abort()  # not close(), which waits for what the host may never read

    def _heed(self) -> None:
        """The runner gave a sign of life: from now on it may be silent for so long again. Other noise is none."""
        if not self._patience.expired():
            now = asyncio.get_running_loop().time()
            self._patience.reschedule(None if self._waits else now + self._settings.ssh_silence)

    def _spec(self) -> TaskSpec:
        task, run = self._task, self._task.run
        return TaskSpec(
            task.id, run.script, {**run.env, **task_env(task)}, run.run.timeout, self._settings.kill_after,
            run.run.output_limit(self._settings.max_output),
        )  # fmt: skip

    async def _open(self, deliver: bool) -> Process:
        """Send the command. From here on an unaccepted task may be on its way."""
        command = (run_command if deliver else follow_command)(
            self._task.id, self._position, marker=self._marker.decode()
        )
        self._task.offers += deliver
        try:
            return await self._kept.connection.create_process(command, encoding=None)
        except asyncssh.ChannelOpenError as error:
            self._task.offers -= deliver
            self._kept.connection.abort()
            message = f"the host opens no channel: {error.reason}"
            raise LineDown(TaskReason.CHANNEL_REFUSED, message, passing=True) from error
        except (OSError, asyncssh.Error) as error:
            raise _lost(error) from error

    async def _write(self, process: Process, framed: bytes) -> None:
        try:
            for start in range(0, len(framed), CHUNK):
                process.stdin.write(framed[start : start + CHUNK])
                await process.stdin.drain()
                self._heed()  # a large script on a slow line
            process.stdin.write_eof()
        except (OSError, asyncssh.Error) as error:
            # What runs there may end without having read all. If it was the line, the readers are told why.
            log.debug("task not written to the end", extra={"task": self._task.id, "error": str(error)})

    async def _read_output(self, process: Process) -> None:
        before: bytes | None = b""
        async for data in self._chunks(process.stdout):
            if before is None:
                await self._take(data)
            else:
                before += data
                _, begun, first = before.partition(self._marker)
                if begun:
                    before = None
                    self._heed()
                    await self._take(first)
                elif len(before) > NOISE:
                    break
                else:
                    self._noise = before[-LINE:]
            if self._task.settled:
                break

    async def _take(self, data: bytes) -> None:
        if data and self._task.state is not TaskState.RUNNING and not self._task.settled:
            self._task.is_on_host(None, running=True)  # it speaks, so it runs
            self._recorder.note(self._task)  # also where all that it says is held back, as a secret may begin so
        self._recorder.note_output(self._task, self._position, data)
        self._position += len(data)
        self._waits = True  # it is us who read no more
        self._heed()
        await self._recorder.room()
        self._waits = False
        self._heed()

    async def _read_status(self, process: Process) -> None:
        rest = b""
        async for data in self._chunks(process.stderr):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-LINE:]
            for line in lines:
                self._hear(line)

    async def _chunks(self, reader: asyncssh.SSHReader[bytes]) -> AsyncIterator[bytes]:
        try:
            while data := await reader.read(CHUNK):
                yield data
        except (OSError, asyncssh.Error) as error:
            self._cut = self._cut or error

    def _hear(self, line: bytes) -> None:
        status = parse_status(line)
        if status is None or status.task_id != self._task.id:
            self._noise = (self._noise + line + b"\n")[-LINE:]
            return
        self._last = status
        self._heed()
        task = self._task
        if status.state in (State.ACCEPTED, State.RUNNING) and not task.settled:
            before = (task.state, task.reason, task.start_time)
            task.is_on_host(host_time(status.started), running=status.state is State.RUNNING)
            if before != (task.state, task.reason, task.start_time):
                self._recorder.note(task)

    def _conclude(self, process: Process) -> None:
        task, status = self._task, self._last
        if task.settled:
            return
        if status is None:
            raise _lost(self._cut) if self._cut or process.exit_status is None else self._runner_failed(process)
        complete = task.received >= status.output_size
        if status.state is State.FINISHED and complete:
            task.end(_end(status))
        elif status.state is State.INTERRUPTED and complete:
            task.interrupted(status.reason)
        elif status.state is State.ABSENT:
            task.absent()
        elif status.state in (State.FINISHED, State.INTERRUPTED) and self._cut is None:
            task.ended_short()
        else:
            task.unclaimed = status.state is State.ACCEPTED and self._cut is None
        if task.settled:
            self._recorder.note(task)

    def _runner_failed(self, process: Process) -> LineDown:
        said = self._noise.decode("utf-8", "replace").strip()[-500:]
        message = f"the host accepted the login and did not run our command (exit status {process.exit_status}): {said}"
        return LineDown(TaskReason.RUNNER_FAILED, message, passing=True)


def _lost(error: Exception | None) -> LineDown:
    why = (str(error) or type(error).__name__) if error else "the channel was closed"
    return LineDown(TaskReason.CONNECTION_LOST, f"the SSH connection was lost: {why}", passing=True)


def _silent(seconds: float) -> LineDown:
    message = f"the host took our command and then said nothing for {seconds:g} s; look at its load and its disk"
    return LineDown(TaskReason.HOST_SILENT, message, passing=True)


def _end(status: Status) -> End:
    return End(
        status.reason or Reason.EXITED, status.exit_status, status.signal or 0, status.truncated,
        host_time(status.started), host_time(status.ended),
    )  # fmt: skip
