"""Runs: check, act, answer."""

from asyncio import to_thread
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from twinline.executor.v1 import runs_pb2 as pb
from twinline.executor.v1 import runs_pb2_grpc as rpc
from twinline_executor import convert
from twinline_executor.credentials import Credentials
from twinline_executor.dispatcher import Dispatcher
from twinline_executor.planner import Planner, asked
from twinline_executor.rows import Run, Task
from twinline_executor.states import State
from twinline_executor.store.runs import RunStore
from twinline_executor.watching import Watching
from twinline_kit import pages, telemetry
from twinline_kit.auth import caller
from twinline_kit.clock import Clock
from twinline_kit.errors import InvalidArgument
from twinline_kit.ids import new_id, required_request_id
from twinline_kit.interceptors import Context


class RunService(rpc.RunServiceServicer):
    """One script on one or many targets."""

    def __init__(
        self, runs: RunStore, planner: Planner, credentials: Credentials, dispatcher: Dispatcher, watching: Watching,
        *, clock: Clock,
    ) -> None:  # fmt: skip
        self._runs = runs
        self._planner = planner
        self._credentials = credentials
        self._dispatcher = dispatcher
        self._watching = watching
        self._clock = clock

    async def StartRun(self, request: pb.StartRunRequest, context: Context) -> pb.Run:
        if request.validate_only:
            planned, tasks = await self._plan(request, "")
            return convert.run(planned, {State.PENDING: len(tasks)})
        if first := await to_thread(self._runs.by_request, required_request_id(request.request_id)):
            return await self._answer(_asked_again(first, request))
        run_id = new_id("run")
        with self._dispatcher.starting(run_id):
            planned, tasks = await self._plan(request, run_id)
            run = await to_thread(self._runs.create, planned, tasks)
            if run.id == run_id:
                self._dispatcher.start(run, tasks)
                return convert.run(run, {State.PENDING: len(tasks)})
        return await self._answer(_asked_again(run, request))

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.Run:
        return convert.run(*await to_thread(self._runs.standing, request.run))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        size = pages.page_size(request.page_size)
        before = _before(pages.decode(request.page_token, parts=2))
        rows = await to_thread(self._runs.newest, before=before, limit=size + 1)
        page, following = pages.slice(rows, size, lambda row: (row.create_time.isoformat(), row.id))
        counts = await to_thread(self._runs.counts, [row.id for row in page])
        return pb.ListRunsResponse(runs=[convert.run(row, counts[row.id]) for row in page], next_page_token=following)

    async def ListTasks(self, request: pb.ListTasksRequest, context: Context) -> pb.ListTasksResponse:
        size = pages.page_size(request.page_size)
        name, task_id = pages.decode(request.page_token, filter=request.run, parts=2) or ("", "")
        await to_thread(self._runs.get, request.run)
        rows = await to_thread(self._runs.tasks_by_name, request.run, after=(name, task_id), limit=size + 1)
        page, following = pages.slice(rows, size, lambda row: (row.target_name, row.id), filter=request.run)
        return pb.ListTasksResponse(tasks=[convert.task(row) for row in page], next_page_token=following)

    async def WatchRun(self, request: pb.WatchRunRequest, context: Context) -> AsyncIterator[pb.WatchRunResponse]:
        if request.run_only:
            async for run, counts in self._watching.run_only(request.run):
                yield pb.WatchRunResponse(run=convert.run(run, counts))
            return
        async for run, counts, tasks in self._watching.run(request.run):
            yield pb.WatchRunResponse(run=convert.run(run, counts), tasks=[convert.task(task) for task in tasks])

    async def ReadOutput(self, request: pb.ReadOutputRequest, context: Context) -> AsyncIterator[pb.ReadOutputResponse]:
        if request.offset < 0:
            raise InvalidArgument("offset is negative; it counts bytes from 0", field="offset")
        async for offset, data in self._watching.output(request.task, request.offset, follow=request.follow):
            yield pb.ReadOutputResponse(offset=offset, data=data)

    async def CancelRun(self, request: pb.CancelRunRequest, context: Context) -> pb.Run:
        await to_thread(self._runs.get, request.run)
        await to_thread(self._runs.cancel, request.run)
        await self._dispatcher.cancel(request.run)
        return convert.run(*await to_thread(self._runs.standing, request.run))

    async def _plan(self, request: pb.StartRunRequest, run_id: str) -> tuple[Run, list[Task]]:
        run, tasks = await to_thread(
            self._planner.plan, request, run_id=run_id, started_by=caller().name,
            traceparent=telemetry.current_traceparent(), at=self._clock(),
        )  # fmt: skip
        await self._credentials.check(run)
        return run, tasks

    async def _answer(self, run: Run) -> pb.Run:
        counts = await to_thread(self._runs.counts, [run.id])
        return convert.run(run, counts[run.id])


def _asked_again(run: Run, request: pb.StartRunRequest) -> Run:
    """`run`, which this request_id made, unless it was made for something else. An older version did not note what."""
    if run.asked not in (None, asked(request)):
        message = f"request_id was used before, for {run.id}, which is something else: make a new one"
        raise InvalidArgument(message, field="request_id")
    return run


def _before(position: tuple[str, ...]) -> tuple[datetime, str] | None:
    if not position:
        return None
    try:
        at = datetime.fromisoformat(position[0])
        if at.tzinfo is None:
            raise ValueError("a moment without a time zone")
        return at.astimezone(UTC), position[1]
    except (ValueError, OverflowError):
        raise pages.BadPageToken("page_token is not one of ours: start again without one") from None
