"""Whatever is killed in mid-run: the script ran once, its output has no gap and no repeat, its outcome is exact."""

import asyncio
import signal

import pytest

from tests.peers.counting import MUCH, Counting
from tests.peers.eventually import eventually
from tests.peers.runs import runs_of
from tests.peers.site import Kind, is_agent, is_ssh_session, kill_9
from tests.suite.running import Suite

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize(("server", "what"), [("web-2", is_agent), ("web-1", is_ssh_session)])
async def test_a_run_survives_what_carries_it(site: Suite, counting: Counting, server: str, what: Kind) -> None:
    async with runs_of(site.home) as runs:
        run = await counting.start(runs, f"name:{server}")
        for _ in range(2):
            assert kill_9(site, server, what) > 0
            await runs.grows(run, by=MUCH)
        counting.stop()
        await counting.holds(runs, run)


async def test_runs_survive_the_whole_suite(site: Suite, counting: Counting) -> None:
    async with runs_of(site.home) as runs:
        run = await counting.start(runs, "deployment:site")
        site.stop(signal.SIGKILL)
        await asyncio.to_thread(site.start)
        await runs.grows(run, by=MUCH)
        counting.stop()
        await counting.holds(runs, run)


async def test_the_end_of_a_run_that_nobody_saw_is_known_afterwards(site: Suite, counting: Counting) -> None:
    async with runs_of(site.home) as runs:
        run = await counting.start(runs, "deployment:site")
        site.stop(signal.SIGKILL)
        counting.stop()
        await eventually(lambda: counting.has_ended("web-1") and counting.has_ended("web-2"))
        await asyncio.to_thread(site.start)
        await counting.holds(runs, run)
