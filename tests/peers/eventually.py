"""Waiting for something to come true. The only place in the tests that sleeps."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

FIRST_PAUSE = 0.005
LONGEST_PAUSE = 0.1


async def eventually(check: Callable[[], T | Awaitable[T]], *, within: float = 10.0) -> T:
    """Call `check` until it neither raises nor answers False, and return what it answered.

    After `within` seconds its last failure is raised again.
    """
    deadline = time.monotonic() + within
    pause = FIRST_PAUSE
    while True:
        try:
            return await _passed(check)
        except Exception:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


async def _passed(check: Callable[[], T | Awaitable[T]]) -> T:
    answer = check()
    result: T = await answer if inspect.isawaitable(answer) else answer
    if result is False:
        raise AssertionError("the check still answers False")
    return result
