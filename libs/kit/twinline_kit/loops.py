"""Work beside the RPCs, most of which repeats until it is cancelled."""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from twinline_kit.errors import Error

log = logging.getLogger(__name__)

LONGEST_PAUSE = 30.0
"""Seconds between two attempts at most, where nothing else is said."""

T = TypeVar("T")

Background = Callable[[], Awaitable[None]]
"""Work beside the RPCs, until it is cancelled."""


@contextlib.asynccontextmanager
async def working(background: Sequence[Background]) -> AsyncIterator[None]:
    """Do the background work within the block. Work that fails ends the block, and its error comes out here."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_to_coroutine(work)) for work in background]
            yield
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from several


async def forever(
    name: str,
    step: Callable[[], Awaitable[None]],
    *,
    every: float,
    wake: asyncio.Event | None = None,
    longest_pause: float = LONGEST_PAUSE,
) -> None:
    """Run `step`, wait `every` seconds or until `wake` is set, and again, until cancelled.

    A step that fails is logged and run again after a pause that grows to `longest_pause`; `wake` does not shorten that
    pause. A step that tells others that we live wants a short one: they must hear of us soon when it works again.
    """
    while True:
        if wake is not None:
            wake.clear()  # before the step: what is asked for during it is worth another one
        await until_done(name, step, longest_pause=longest_pause)
        if wake is None:
            await asyncio.sleep(every)
        else:
            # Not wait_for: before Python 3.12 it may swallow a cancellation that comes with the wake.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await wake.wait()


async def until_done(
    name: str, step: Callable[[], Awaitable[T]], *, longest_pause: float = LONGEST_PAUSE, **fields: str
) -> T:
    """What `step` answers, once it does.

    A step that fails is logged, with `fields`, and run again after a pause that grows to `longest_pause` seconds.
    """
    failures = 0
    while True:
        try:
            return await step()
        except Exception as error:  # noqa: BLE001  # a loop outlives its failures
            failures += 1
            _report(error, {**fields, "step": name, "failures": failures, "error": str(error)})
        await asyncio.sleep(backoff(failures, longest=longest_pause))


def end_if_cancelled() -> None:
    """End the task that calls this when it was cancelled and did not hear of it; for loops that outlive failures.

    Before Python 3.13 a TaskGroup that fails while its task is cancelled raises the failure alone, and before 3.12
    `wait_for` may answer.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def backoff(failures: int, *, first: float = 0.5, longest: float = LONGEST_PAUSE) -> float:
    """Seconds to wait after that many failures in a row: doubles up to `longest`, with half of it left to chance."""
    return min(first * 2.0 ** min(failures - 1, 16), longest) * random.uniform(0.5, 1.0)


async def _to_coroutine(work: Background) -> None:
    await work()


def _report(error: Exception, fields: Mapping[str, object]) -> None:
    if isinstance(error, Error):
        log.warning("step failed, will retry", extra=fields)
    else:
        log.error("step failed unexpectedly, will retry", extra=fields, exc_info=error)
