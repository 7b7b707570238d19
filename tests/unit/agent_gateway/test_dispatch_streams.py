"""What waits for one Dispatch stream."""

import asyncio

import pytest

from tests.peers.eventually import eventually
from twinline.agent_gateway.v1 import agents_pb2, fleet_pb2
from twinline_agent_gateway.dispatch_streams import AT_ONCE, MOST_REPORTS, DispatchStream


@pytest.fixture
async def dispatcher() -> DispatchStream:
    return DispatchStream("executor-1", forwarded=False)


async def told(dispatcher: DispatchStream, enough: int) -> list[fleet_pb2.DispatchResponse]:
    """The messages it writes until they hold so many reports."""
    written: list[fleet_pb2.DispatchResponse] = []

    async def write(response: fleet_pb2.DispatchResponse) -> None:
        written.append(response)

    sending = asyncio.ensure_future(dispatcher.send(write))
    await eventually(lambda: sum(len(response.reports) for response in written) >= enough)
    sending.cancel()
    return written


async def test_reports_of_many_agents_go_in_few_messages(dispatcher: DispatchStream) -> None:
    for number in range(1000):
        dispatcher.report(f"agent-{number}", agents_pb2.TaskReport(task_id=f"task-{number}"))
    assert len(await told(dispatcher, 1000)) == -(-1000 // AT_ONCE)


async def test_it_is_full_at_a_bound_and_has_room_again_when_read(dispatcher: DispatchStream) -> None:
    for number in range(MOST_REPORTS):
        dispatcher.report(f"agent-{number}", agents_pb2.TaskReport())
    assert dispatcher.full
    waiting = asyncio.ensure_future(dispatcher.room(within=60))
    await told(dispatcher, AT_ONCE)
    assert await waiting


async def test_who_waits_for_room_is_let_go_when_it_closes(dispatcher: DispatchStream) -> None:
    dispatcher.report("agent-1", agents_pb2.TaskReport(data=bytes(8 << 20)))
    waiting = asyncio.ensure_future(dispatcher.room(within=60))
    dispatcher.close()
    await asyncio.wait_for(waiting, 5)


async def test_agents_whose_reports_were_shed_are_asked_again_once_there_is_room() -> None:
    stream = DispatchStream("executor-1", forwarded=False)
    stream.report("agent-1", agents_pb2.TaskReport(data=bytes(8 << 20)))
    stream.shed("agent-2")
    stream.report("agent-3", agents_pb2.TaskReport())
    assert stream.sheds("agent-2")
    first, *_ = await told(stream, 2)
    assert [each.agent_id for each in first.presence] == ["agent-2"]
    assert not stream.sheds("agent-2")
