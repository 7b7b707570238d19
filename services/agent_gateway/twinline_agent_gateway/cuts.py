"""The end of a stream that others want: its task is cancelled, and the other side is told why."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from twinline_kit.errors import Error


class Cuttable:
    """A stream. Belongs to the task that makes it, which is the one that `cut` ends."""

    __slots__ = ("_cut_with", "_task")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._cut_with: Error | None = None

    def cut(self, why: Error) -> None:
        """End the stream with this error."""
        if self._cut_with is None and self._task is not None:
            self._cut_with = why
            self._task.cancel()

    @contextmanager
    def served(self) -> Iterator[None]:
        """Within the block the stream is served; the error of a cut comes out of it."""
        try:
            yield
        except asyncio.CancelledError:
            if self._cut_with is None or self._task is None:
                raise  # the other side, or the line, ended it
            self._task.uncancel()
            raise self._cut_with from None
