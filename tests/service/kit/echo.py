"""A service with one method of each kind, which does what its request says."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import sqlalchemy as sa
from google.protobuf.wrappers_pb2 import StringValue

from twinline_kit.auth import Access, Caller, Grant, Kind, caller
from twinline_kit.errors import FailedPrecondition, InvalidArgument, Unauthenticated, Violation
from twinline_kit.server import Service

NAME = "twinline.test.v1.EchoService"
CODEC: dict[str, Any] = {
    "request_deserializer": StringValue.FromString,
    "response_serializer": StringValue.SerializeToString,
}
PEOPLE = {"admin-token": Grant.ADMIN, "observer-token": Grant.OBSERVER}

ACCESS: Access = {
    f"/{NAME}/Unary": frozenset({Grant.OBSERVER, Grant.AGENT}),
    f"/{NAME}/Many": frozenset({Grant.OBSERVER}),
    f"/{NAME}/Collect": frozenset({Grant.OBSERVER}),
    f"/{NAME}/Chat": frozenset({Grant.OBSERVER, Grant.AGENT}),
    f"/{NAME}/Open": frozenset({Grant.ANYONE}),
    **{f"/{NAME}/For_{grant}": frozenset({grant}) for grant in Grant},
}


class KettleEmpty(FailedPrecondition):
    """What the echo raises when asked to fail."""

    reason = "TEST_KETTLE_EMPTY"

    def __init__(self, kettle: str) -> None:
        super().__init__(
            f"kettle {kettle} is empty: fill it", violations=[Violation("EMPTY", kettle, "no water")], kettle=kettle
        )


class People:
    """Knows two tokens."""

    async def verify(self, token: str) -> Caller:
        if token not in PEOPLE:
            raise Unauthenticated("no such token")
        return Caller(Kind.PERSON, token.removesuffix("-token"), frozenset({PEOPLE[token]}))


def act(request: StringValue) -> StringValue:
    """Echo, or fail in the way that is asked for."""
    match request.value:
        case "who":
            return StringValue(value=str(caller()))
        case "fail":
            raise KettleEmpty("blue")
        case "wrong":
            raise InvalidArgument("two fields are wrong", violations=[Violation("EMPTY", "name", "name is empty")])
        case "bug":
            raise ZeroDivisionError("secret detail")
        case "away":
            sa.create_engine("sqlite:////nowhere/secret.db").connect()
    return request


async def unary(request: StringValue, context: Any) -> StringValue:
    if request.value == "group":
        async with asyncio.TaskGroup() as group:
            group.create_task(unary(StringValue(value="fail"), context))
    if request.value == "forever":
        await asyncio.Event().wait()
    return act(request)


async def many(request: StringValue, context: Any) -> AsyncIterator[StringValue]:
    for _ in range(3):
        yield StringValue(value="go on")
    yield act(request)


async def collect(requests: AsyncIterator[StringValue], context: Any) -> StringValue:
    return StringValue(value=",".join([act(request).value async for request in requests]))


async def chat(requests: AsyncIterator[StringValue], context: Any) -> None:
    """Uses reads and writes, not a generator."""
    while (request := await context.read()) is not grpc.aio.EOF:
        if request.value == "shed":
            await context.abort(grpc.StatusCode.CANCELLED, "too much")
        await context.write(act(request))


def register(server: grpc.aio.Server) -> None:
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary, **CODEC),
        "Open": grpc.unary_unary_rpc_method_handler(unary, **CODEC),
        "Unlisted": grpc.unary_unary_rpc_method_handler(unary, **CODEC),
        "Many": grpc.unary_stream_rpc_method_handler(many, **CODEC),
        "Collect": grpc.stream_unary_rpc_method_handler(collect, **CODEC),
        "Chat": grpc.stream_stream_rpc_method_handler(chat, **CODEC),
        **{f"For_{grant}": grpc.unary_unary_rpc_method_handler(unary, **CODEC) for grant in Grant},
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))


SERVICE = Service(NAME, register, ACCESS)


class Echo:
    """A stub for the service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        codec = (StringValue.SerializeToString, StringValue.FromString)
        self._channel = channel
        self.many: Any = channel.unary_stream(f"/{NAME}/Many", *codec)
        self.collect: Any = channel.stream_unary(f"/{NAME}/Collect", *codec)
        self.chat: Any = channel.stream_stream(f"/{NAME}/Chat", *codec)

    def call(self, value: str, *, method: str = "Unary", **options: Any) -> Any:
        """Call one of the unary methods."""
        codec = (StringValue.SerializeToString, StringValue.FromString)
        return self._channel.unary_unary(f"/{NAME}/{method}", *codec)(StringValue(value=value), **options)

    async def say(self, value: str, **options: Any) -> str:
        """What the service answers."""
        answer: StringValue = await self.call(value, **options)
        return answer.value
