"""What is wanted of agents while the database is asked where they are."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.peers.eventually import eventually
from tests.unit.agent_gateway.routing import Far, Line, at_two, away, cancel, dispatched, stream, wanted
from twinline_agent_gateway import lookup
from twinline_agent_gateway.dispatch_streams import DispatchStream
from twinline_agent_gateway.router import Router
from twinline_agent_gateway.states import State
from twinline_agent_gateway.store import Location


async def never(agent_ids: Sequence[str]) -> dict[str, Location]:
    """As a database that does not answer."""
    await asyncio.Event().wait()
    return {}


async def test_an_agent_that_comes_while_it_is_looked_for_is_told_all_at_once_and_in_order() -> None:
    line, router = Line(), Router("one", never, lambda _: Far())
    here, dispatcher = stream(1, line), DispatchStream("executor-1", forwarded=False)
    router.open(dispatcher)
    finding = asyncio.ensure_future(router.find(dispatcher))
    await router.dispatch(dispatcher, wanted("task-1", "task-2", script=b"true"))
    await eventually(lambda: not dispatcher.lookup.waiting.is_set())
    await router.dispatch(dispatcher, wanted("task-1", withdraw=True))
    await router.dispatch(dispatcher, cancel("task-2"))
    router.attach(here)
    await here.write()
    assert [(each.task_id, each.withdraw) for each in line.deliveries] == [("task-1", True), ("task-2", False)]
    assert line.canceled == ["task-2"]
    finding.cancel()


async def test_a_cancel_goes_the_known_way_at_once_and_again_after_what_is_looked_up() -> None:
    far, places = Far(), asyncio.Queue[dict[str, Location]]()
    router = Router("one", lambda _: places.get(), lambda _: far)
    dispatcher = DispatchStream("executor-1", forwarded=False)
    router.open(dispatcher)
    places.put_nowait(await at_two(["agent-1"]))
    await dispatched(router, dispatcher, wanted("task-1"))
    finding = asyncio.ensure_future(router.find(dispatcher))
    await router.dispatch(dispatcher, wanted("task-1"))
    await router.dispatch(dispatcher, cancel("task-1"))
    assert far.canceled == ["task-1"]
    places.put_nowait(await at_two(["agent-1"]))
    await eventually(lambda: far.canceled == ["task-1", "task-1"])
    finding.cancel()


async def test_what_is_stated_while_the_database_is_asked_is_looked_up_anew() -> None:
    places = asyncio.Queue[dict[str, Location]]()
    far, dispatcher = Far(), DispatchStream("executor-1", forwarded=False)
    router = Router("one", lambda _: places.get(), lambda _: far)
    router.open(dispatcher)
    await router.dispatch(dispatcher, wanted("task-1"))
    finding = asyncio.ensure_future(router.find(dispatcher))
    await eventually(lambda: not dispatcher.lookup.waiting.is_set())
    await router.dispatch(dispatcher, wanted("task-2"))  # because it was told that the agent has come
    places.put_nowait({"agent-1": Location(State.LOST, "", "")})  # how it was before
    await finding
    assert await away(dispatcher) == {"task-1"}
    places.put_nowait(await at_two(["agent-1"]))
    await router.find(dispatcher)
    assert far.delivered == ["task-2"]


async def test_tasks_for_which_too_much_waits_for_the_database_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    far = Far()
    monkeypatch.setattr(lookup, "MOST_BYTES", wanted("task-1").ByteSize())
    router, dispatcher = Router("one", at_two, lambda _: far), DispatchStream("executor-1", forwarded=False)
    router.open(dispatcher)
    await router.dispatch(dispatcher, wanted("task-1"))
    await router.dispatch(dispatcher, wanted("task-2"))
    assert await away(dispatcher) == {"task-2"}
    await router.find(dispatcher)
    await dispatched(router, dispatcher, wanted("task-3"))
    assert far.delivered == ["task-1", "task-3"]
