"""Child processes that are steered by lines of JSON, and what they cost."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ANSWER_WITHIN = 180.0


class Steered:
    """A child that answers each line of JSON with one."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Send one line and return the answer to it."""
        self.tell(question)
        return await self.answer()

    def tell(self, question: dict[str, Any]) -> None:
        """Send one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")

    async def answer(self) -> dict[str, Any]:
        """Return the next line it says."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), ANSWER_WITHIN)
        if not line:
            raise RuntimeError(f"a measuring process ended with status {await self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def steered(module: str, argument: Path) -> AsyncIterator[Steered]:
    """Run `python -m module argument` until the block ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, str(argument), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Steered(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()


def cpu_seconds_of(pid: int) -> float:
    """Processor time another process used so far, in user and system; by the clock of clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2)
