"""Following a run to its end."""

import asyncio
import sys
from collections.abc import AsyncIterable, Sequence
from functools import partial

import grpc.aio

from twinline.executor.v1 import runs_pb2 as pb
from twinline.executor.v1 import runs_pb2_grpc as rpc
from twinline_cli.errors import CliError, say
from twinline_cli.progress import Progress
from twinline_cli.reconnecting import again_and_again
from twinline_cli.results import harmless, summary, why
from twinline_cli.terminal import BLUE, colour, escape

_MOST_FOLLOWED = 200
_MOST_TOLD = 5


async def follow(channel: grpc.aio.Channel, run: str, *, live: bool) -> pb.Run:
    """The run once it has ended; meanwhile its progress on a terminal and, with `live`, the output of every task.

    A suite that goes away is waited for, and followed again when it is back; Unavailable when it stays away.
    """
    latest = pb.Run(id=run)
    waits = _Waits(run)
    with Progress(sys.stderr) as progress:
        try:
            async with asyncio.TaskGroup() as readers:
                seen: set[str] = set()
                async for change in again_and_again(partial(_changes, channel, run)):
                    latest = change.run
                    waits.note(change.tasks, progress)
                    progress.show("  ".join(filter(None, (run, summary(latest.counts), waits.first()))))
                    fresh = [task for task in change.tasks if task.id not in seen] if live else []
                    seen.update(task.id for task in fresh)
                    if len(seen) > _MOST_FOLLOWED:
                        raise CliError(f"--follow is for {_MOST_FOLLOWED} servers at most; {run} goes on without it")
                    for task in fresh:
                        readers.create_task(_print_as_it_comes(channel, task, progress))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from several
    return latest


class _Waits:
    """Why tasks wait: each reason of a task is said once, of so many tasks that they can be read."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._waiting: dict[str, pb.Task] = {}
        self._told: set[tuple[str, str]] = set()
        self._is_full = False

    def note(self, tasks: Sequence[pb.Task], progress: Progress) -> None:
        """Take in tasks as they are now, and say what is new."""
        fresh = []
        for task in tasks:
            self._waiting.pop(task.id, None)
            if task.state == pb.Task.STATE_PENDING and task.reason:
                self._waiting[task.id] = task
                if (task.id, task.reason) not in self._told:
                    fresh.append(task)
        if fresh and not self._is_full:
            progress.clear()
            self._tell(fresh)

    def first(self) -> str:
        """The reason of the task that has waited longest; nothing when none waits for a reason."""
        task = next(iter(self._waiting.values()), None)
        return f"{task.target_name} waits: {task.reason}" if task is not None else ""

    def _tell(self, fresh: Sequence[pb.Task]) -> None:
        room = _MOST_TOLD - len(self._told)
        for task in fresh[:room]:
            self._told.add((task.id, task.reason))
            say(f"{task.target_name} waits: {why(task)}")
        if len(fresh) > room:
            self._is_full = True
            say(f"and {len(fresh) - room} more; see them with `twinline runs show {self._run}`")


def _changes(channel: grpc.aio.Channel, run: str) -> AsyncIterable[pb.WatchRunResponse]:
    return rpc.RunServiceStub(channel).WatchRun(pb.WatchRunRequest(run=run))


async def _print_as_it_comes(channel: grpc.aio.Channel, task: pb.Task, progress: Progress) -> None:
    """Whole lines with the target's name before them; on a terminal made harmless."""
    request = pb.ReadOutputRequest(task=task.id, follow=True)
    rest = b""
    async for piece in again_and_again(lambda: rpc.RunServiceStub(channel).ReadOutput(request)):
        request.offset = piece.offset + len(piece.data)
        *lines, rest = (rest + piece.data).split(b"\n")
        progress.clear()
        for text in lines:
            _print(task, text)
    if rest:
        _print(task, rest)


def _print(task: pb.Task, text: bytes) -> None:
    prefix = colour(f"{escape(task.target_name)} | ", BLUE)
    if sys.stdout.isatty():
        sys.stdout.write(f"{prefix}{harmless(text)}\n")
    else:
        sys.stdout.buffer.write(prefix.encode() + text + b"\n")
    sys.stdout.flush()
