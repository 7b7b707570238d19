"""Following a run to its end."""

import asyncio
import sys

import grpc.aio

from twinline.executor.v1 import runs_pb2 as pb
from twinline.executor.v1 import runs_pb2_grpc as rpc
from twinline_cli.errors import CliError
from twinline_cli.progress import Progress
from twinline_cli.results import harmless, summary
from twinline_cli.terminal import BLUE, colour, escape

_MOST_FOLLOWED = 200


async def follow(channel: grpc.aio.Channel, run: str, *, live: bool) -> pb.Run:
    """The run once it has ended; meanwhile its progress on a terminal and, with `live`, the output of every task."""
    latest = pb.Run(id=run)
    with Progress(sys.stderr) as progress:
        try:
            async with asyncio.TaskGroup() as readers:
                seen: set[str] = set()
                async for change in rpc.RunServiceStub(channel).WatchRun(pb.WatchRunRequest(run=run)):
                    latest = change.run
                    progress.show(f"{run}  {summary(latest.counts)}")
                    fresh = [task for task in change.tasks if task.id not in seen] if live else []
                    seen.update(task.id for task in fresh)
                    if len(seen) > _MOST_FOLLOWED:
                        raise CliError(f"--follow is for {_MOST_FOLLOWED} servers at most; {run} goes on without it")
                    for task in fresh:
                        readers.create_task(_print_as_it_comes(channel, task, progress))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from several
    return latest


async def _print_as_it_comes(channel: grpc.aio.Channel, task: pb.Task, progress: Progress) -> None:
    """Whole lines with the target's name before them; on a terminal made harmless."""
    request = pb.ReadOutputRequest(task=task.id, follow=True)
    rest = b""
    async for piece in rpc.RunServiceStub(channel).ReadOutput(request):
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
