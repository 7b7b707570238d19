"""Writing to calls that are over, in each of the ways in which real calls end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest

from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline_agent_gateway.dispatch_streams import DispatchStream
from twinline_agent_gateway.shepherd import silent
from twinline_agent_gateway.streams import AgentStream, Parcel, Writers
from twinline_kit.errors import Internal

METHOD = "Call"
PARCEL = Parcel("task-1", None, 0, {})


class Door:
    """Serves one method, whose contexts it gives away, on a real server."""

    def __init__(self) -> None:
        self.contexts: asyncio.Queue[Any] = asyncio.Queue()
        self.open = asyncio.Event()
        self.over = asyncio.Event()

    async def call(self, requests: object, context: Any) -> None:
        """Give the context away and stay until the door is opened."""
        self.contexts.put_nowait(context)
        try:
            await self.open.wait()
        finally:
            self.over.set()

    @asynccontextmanager
    async def called(self) -> AsyncIterator[tuple[grpc.aio.Server, Any]]:
        """The server, and a call that is being served."""
        server = grpc.aio.server()
        handler: Any = grpc.stream_stream_rpc_method_handler(
            self.call, response_serializer=lambda message: message.SerializeToString()
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Door", {METHOD: handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield server, channel.stream_stream(f"/test.Door/{METHOD}")()
        finally:
            await server.stop(0)


@pytest.fixture(params=["answered", "canceled", "stopped"])
async def context(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Of a call that is over."""
    door = Door()
    async with door.called() as (server, call):
        context = await door.contexts.get()
        if request.param == "answered":
            door.open.set()
            await call.code()
        elif request.param == "canceled":
            call.cancel()
        else:
            await server.stop(0)
        await asyncio.wait_for(door.over.wait(), 10)
        yield context


async def test_a_write_to_a_call_that_is_over_is_an_error_of_grpc(context: Any) -> None:
    with pytest.raises(grpc.aio.BaseError):
        await context.write(pb.GatewayMessage())


async def test_an_agents_stream_that_is_over_drops_what_waits(context: Any) -> None:
    stream = AgentStream("agent-1", 1, context, asyncio.Queue())
    stream.deliver(PARCEL)
    await stream.write()
    stream.deliver(PARCEL)
    assert stream.idle


async def test_a_dispatcher_whose_stream_is_over_stops_sending(context: Any) -> None:
    dispatcher = DispatchStream("executor-1", forwarded=False)
    dispatcher.report("agent-1", pb.TaskReport())
    await asyncio.wait_for(dispatcher.send(context.write), 10)


class Broken:
    """A call to which nothing can be written, for no reason that grpc knows."""

    async def write(self, message: object) -> None:
        """Fail."""
        raise ValueError("no such message")


async def test_an_agent_that_cannot_be_written_to_for_whatever_reason_is_cut() -> None:
    writers = Writers(silent())
    writing = asyncio.ensure_future(writers.run())
    context: Any = Broken()
    stream = AgentStream("agent-1", 1, context, writers.queue)
    stream.deliver(PARCEL)
    with pytest.raises(Internal), stream.served():
        await asyncio.wait([writing], timeout=10)
    writing.cancel()
