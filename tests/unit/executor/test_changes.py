"""Who is woken by what changes."""

import asyncio

from twinline_executor.changes import Changes


async def test_only_those_who_watch_what_changed_are_woken() -> None:
    changes = Changes()
    with changes.of("run-1") as run, changes.of("task-1") as first, changes.of("task-2") as second:
        changes.tell(["run-1", "task-1", "task-nobody-watches"])
        async with asyncio.timeout(10):
            await run.changed(within=60)
            await first.changed(within=60)
        waiting = asyncio.create_task(second.changed(within=60))
        _, still = await asyncio.wait([waiting], timeout=0.01)
        assert still
        waiting.cancel()


async def test_a_change_is_heard_once_and_none_is_not_waited_for_long() -> None:
    changes = Changes()
    with changes.of("run-1") as watcher:
        changes.tell(["run-1"])
        async with asyncio.timeout(10):
            await watcher.changed(within=60)
        waiting = asyncio.create_task(watcher.changed(within=60))
        _, still = await asyncio.wait([waiting], timeout=0.01)
        assert still
        waiting.cancel()
        async with asyncio.timeout(10):
            await watcher.changed(within=0.01)


async def test_a_lull_ends_with_the_run_and_not_with_any_change() -> None:
    changes = Changes()
    with changes.of("run-1") as watcher:
        changes.tell(["run-1"])
        lull = asyncio.create_task(watcher.lull(60))
        _, still = await asyncio.wait([lull], timeout=0.01)
        assert still
        changes.tell(["run-1"], over=True)
        async with asyncio.timeout(10):
            await lull
