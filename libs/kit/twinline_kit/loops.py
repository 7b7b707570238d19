"""Work beside the RPCs, most of which repeats until it is cancelled."""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from twinline_kit.errors import Error

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0

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
    longest_pause: float = _LONGEST_PAUSE,
) -> None:
    """Run `step`, wait `every` seconds or until `wake` is set, and again, until cancelled.

    A step that fails is logged and run again after a pause that grows to `longest_pause`; `wake` does not shorten that
    pause. A step that tells others that we live wants a short one: they must hear of us soon when it works again.
    """
    failures = 0
    while True:
        if wake is not None:
            wake.clear()  # before the step: what is asked for during it is worth another one
        try:
            await step()
            failures = 0
        except Exception as error:  # noqa: BLE001  # a loop outlives its failures
            failures += 1
            _report(name, error, failures)
        if failures:
            await asyncio.sleep(min(backoff(failures), longest_pause))
        elif wake is None:
            await asyncio.sleep(every)
        else:
            # Not wait_for: before Python 3.12 it may swallow a cancellation that comes with the wake.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await wake.wait()


def end_if_cancelled() -> None:
    """End the task that calls this when it was cancelled and did not hear of it; for loops that outlive failures.

    Before Python 3.13 a TaskGroup that fails while its task is cancelled raises the failure alone, and before 3.12
    `wait_for` may answer.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def backoff(failures: int) -> float:
    """Seconds to wait after that many failures in a row: doubles from 0.5 s to 30 s, with half of it left to chance."""
    longest = min(_FIRST_PAUSE * 2.0 ** min(failures - 1, 16), _LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1.0)


async def _to_coroutine(work: Background) -> None:
    await work()


def _report(name: str, error: Exception, failures: int) -> None:
    fields = {"loop": name, "failures": failures, "error": str(error)}
    if isinstance(error, Error):
        log.warning("loop step failed, will retry", extra=fields)
    else:
        log.error("loop step failed unexpectedly, will retry", extra=fields, exc_info=error)
