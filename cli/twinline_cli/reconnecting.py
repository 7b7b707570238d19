"""Following something beyond the absence of the suite."""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import TypeVar

from twinline_kit.errors import Unavailable
from twinline_kit.loops import backoff

PATIENCE = 15.0
"""Seconds that a suite may be away while something is followed."""

_LONGEST_PAUSE = 2.0

T = TypeVar("T")


async def again_and_again(stream: Callable[[], AsyncIterable[T]]) -> AsyncIterator[T]:
    """What `stream` yields; it is opened anew while the suite is away. Unavailable when it stays away too long."""
    away, failures = 0.0, 0
    while True:
        begun = time.monotonic()
        try:
            async for message in stream():
                away, failures = 0.0, 0
                yield message
            return
        except Unavailable:
            now = time.monotonic()
            # A stream that stood for so long was answered, though it had nothing to tell.
            if not away or now - begun > PATIENCE:
                away = now
            if now - away > PATIENCE:
                raise
        failures += 1
        await asyncio.sleep(backoff(failures, longest=_LONGEST_PAUSE))
