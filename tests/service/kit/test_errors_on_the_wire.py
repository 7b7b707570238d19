"""An error raised in a handler arrives at the caller as the same class, on calls of every kind."""

import asyncio
import json
import logging
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from tests.service.kit.echo import Echo, KettleEmpty
from twinline_kit.db import DatabaseUnavailable
from twinline_kit.errors import DeadlineExceeded, Error, Internal, InvalidArgument, Unavailable, Violation


async def refused(awaitable: Any) -> Error:
    with pytest.raises(Error) as caught:
        await awaitable
    return caught.value


async def every(call: Any) -> list[str]:
    return [message.value async for message in call]


async def test_a_unary_call_raises_the_class_that_was_raised(admin: Echo) -> None:
    error = await refused(admin.say("fail"))
    assert type(error) is KettleEmpty
    assert error.message == "kettle blue is empty: fill it"
    assert error.metadata == {"kettle": "blue"}
    assert error.violations == (Violation("EMPTY", "blue", "no water"),)
    assert isinstance(error.__cause__, grpc.aio.AioRpcError)


async def test_field_violations_arrive_too(admin: Echo) -> None:
    error = await refused(admin.say("wrong"))
    assert type(error) is InvalidArgument
    assert error.violations == (Violation("EMPTY", "name", "name is empty"),)


async def test_a_nul_in_a_request_is_refused_before_anybody_stores_it(admin: Echo) -> None:
    for call in (admin.say("a\0b"), every(admin.many(StringValue(value="a\0b")))):
        error = await refused(call)
        assert (type(error), error.metadata["field"]) == (InvalidArgument, "value")


async def test_reading_a_response_stream_by_iteration_raises_it(admin: Echo) -> None:
    assert await every(admin.many(StringValue(value="end"))) == ["go on"] * 3 + ["end"]
    assert isinstance(await refused(every(admin.many(StringValue(value="fail")))), KettleEmpty)


async def test_reading_a_response_stream_by_read_raises_it(admin: Echo) -> None:
    call = admin.many(StringValue(value="fail"))
    assert [(await call.read()).value for _ in range(3)] == ["go on"] * 3
    assert isinstance(await refused(call.read()), KettleEmpty)


async def test_sending_a_request_stream_raises_it(admin: Echo) -> None:
    assert (await admin.collect(iter([StringValue(value="a"), StringValue(value="b")]))).value == "a,b"
    call = admin.collect()
    await call.write(StringValue(value="fail"))
    await call.done_writing()
    assert isinstance(await refused(call), KettleEmpty)


async def test_a_conversation_raises_it_from_read_and_then_from_write(agent: Echo) -> None:
    call = agent.chat()
    await call.write(StringValue(value="hello"))
    assert (await call.read()).value == "hello"
    await call.write(StringValue(value="fail"))
    assert isinstance(await refused(call.read()), KettleEmpty)
    assert isinstance(await refused(call.write(StringValue(value="more"))), KettleEmpty)


async def test_a_conversation_with_an_iterator_raises_it(agent: Echo) -> None:
    call = agent.chat(iter([StringValue(value="hello"), StringValue(value="fail")]))
    assert isinstance(await refused(every(call)), KettleEmpty)


async def test_writing_to_a_stream_that_ended_well_is_unavailable(agent: Echo) -> None:
    call = agent.chat()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.read() is grpc.aio.EOF


async def test_a_task_group_does_not_hide_the_error(admin: Echo) -> None:
    assert isinstance(await refused(admin.say("group")), KettleEmpty)


async def test_a_bug_is_opaque_and_in_the_log(admin: Echo, caplog: pytest.LogCaptureFixture) -> None:
    error = await refused(admin.say("bug"))
    assert type(error) is Internal
    assert "internal error" in error.message
    assert "secret" not in error.message
    (record,) = [each for each in caplog.records if each.message == "unexpected error"]
    assert record.exc_info
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    assert error.metadata["trace_id"] in error.message


async def test_a_bug_in_a_stream_is_opaque(admin: Echo) -> None:
    assert type(await refused(every(admin.many(StringValue(value="bug"))))) is Internal


async def test_a_database_that_is_away_is_no_bug_and_tells_nothing_of_itself(
    admin: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    for refusal in (await refused(admin.say("away")), await refused(every(admin.many(StringValue(value="away"))))):
        assert type(refusal) is DatabaseUnavailable
        assert refusal.message == "the database of this service is away: try again in a moment; its log says why"
        assert not refusal.metadata
    assert [each.message for each in caplog.records if each.exc_info] == ["the database is away"] * 2


async def test_a_call_the_server_sheds_does_not_look_like_our_own_cancellation(agent: Echo) -> None:
    call = agent.chat()
    await call.write(StringValue(value="shed"))
    assert type(await refused(call.read())) is Unavailable


async def test_our_own_cancellation_stays_one(agent: Echo) -> None:
    call = agent.chat()
    reading = asyncio.ensure_future(call.read())
    await call.wait_for_connection()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert call.cancelled()


async def test_a_deadline_is_an_error_of_ours(admin: Echo) -> None:
    assert type(await refused(admin.say("forever", timeout=0.05))) is DeadlineExceeded


async def test_a_unary_call_has_a_deadline_even_when_none_is_given(admin: Echo) -> None:
    call = admin.call("hello")
    assert 0 < call.time_remaining() <= 30
    await call


async def test_each_rpc_leaves_one_line(admin: Echo, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "twinline_kit")
    await refused(every(admin.many(StringValue(value="fail"))))
    (line,) = [vars(record) for record in caplog.records if record.message == "rpc"]
    assert (line["caller"], line["code"]) == ("person admin", "FAILED_PRECONDITION")
    assert line["ms"] >= 0
    assert "admin-token" not in json.dumps(line, default=str)
