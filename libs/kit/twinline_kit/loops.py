"""Event loops, and work that repeats in them."""

import asyncio
import contextlib
import gc
import logging
import random
from collections.abc import Awaitable, Callable

from twinline_kit.errors import Error

log = logging.getLogger(__name__)

_COLLECT_AFTER = (50_000, 20, 100)
"""Allocations less deallocations before the youngest are looked at, and how many times more for the older ones."""
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0


def use_uvloop_if_there() -> bool:
    """Make uvloop the event loop of this process where it is installed; says whether it is."""
    try:
        import uvloop
    except ImportError:
        return False
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    return True


def spare_the_collector() -> None:
    """Look for garbage cycles less often. Call it when a service has started.

    A server's many long-lived objects are no garbage, and by default the collector walks all of them again and again
    while a large run allocates; references alone free nearly everything here.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


async def forever(
    name: str, step: Callable[[], Awaitable[None]], *, every: float, wake: asyncio.Event | None = None
) -> None:
    """Run `step`, wait `every` seconds or until `wake` is set, and again, until cancelled.

    A step that fails is logged and run again after a pause that grows to 30 s; `wake` does not shorten that pause.
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
            await asyncio.sleep(backoff(failures))
        elif wake is None:
            await asyncio.sleep(every)
        else:
            # Not wait_for: before Python 3.12 it may swallow a cancellation that comes with the wake.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await wake.wait()


def backoff(failures: int) -> float:
    """Seconds to wait after that many failures in a row: doubles from 0.5 s to 30 s, with half of it left to chance."""
    longest = min(_FIRST_PAUSE * 2.0 ** min(failures - 1, 16), _LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1.0)


def _report(name: str, error: Exception, failures: int) -> None:
    fields = {"loop": name, "failures": failures, "error": str(error)}
    if isinstance(error, Error):
        log.warning("loop step failed, will retry", extra=fields)
    else:
        log.error("loop step failed unexpectedly, will retry", extra=fields, exc_info=error)
