"""Starting and stopping a server, and what it offers beside its services."""

import asyncio
import signal
import socket
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped, unused-ignore]
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped, unused-ignore]

from tests.peers.authority import Certificates
from tests.service.kit.conftest import ANYWHERE, Keep
from tests.service.kit.echo import NAME, SERVICE, Echo, People
from twinline_kit import server
from twinline_kit.client import MAX_MESSAGE, MAX_METADATA, api_channel, mesh_channel
from twinline_kit.errors import Error, ResourceExhausted, Unavailable
from twinline_kit.loops import working
from twinline_kit.server import Bound, CannotListen, Listen, PortInUse, serving


async def test_a_taken_port_says_what_to_do(bound: Bound, authority: Certificates) -> None:
    listen = Listen(bound.api, "127.0.0.1:0")
    with pytest.raises(PortInUse, match=f"{bound.api} is in use: stop the process"):
        async with serving(listen, [SERVICE], identity=authority.service("keys"), verifier=People()):
            pass


@pytest.mark.parametrize("address", ["192.0.2.1:0", "nonsense", "127.0.0.1:port"])
async def test_an_address_that_is_not_ours_says_so(authority: Certificates, address: str) -> None:
    listen = Listen(address, "127.0.0.1:0")
    with pytest.raises(CannotListen, match=f"cannot listen on {address}"):
        async with serving(listen, [SERVICE], identity=authority.service("keys"), verifier=People()):
            pass


async def test_health_needs_no_token(bound: Bound, authority: Certificates, keep: Keep) -> None:
    stub: Any = health_pb2_grpc.HealthStub(keep(api_channel(bound.api, authority.ca, None)))
    for name in ("", NAME):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_the_services(bound: Bound, authority: Certificates, keep: Keep) -> None:
    channel: Any = keep(api_channel(bound.api, authority.ca, None))
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = [each async for each in stub.ServerReflectionInfo(iter([request]))]
    assert NAME in [each.name for each in answer.list_services_response.service]


async def test_a_stop_says_not_serving_first_and_lets_calls_end(authority: Certificates, keep: Keep) -> None:
    async with AsyncExitStack() as stack:
        identity = authority.service("keys")
        bound = await stack.enter_async_context(serving(ANYWHERE, [SERVICE], identity=identity, verifier=People()))
        channel = keep(api_channel(bound.api, authority.ca, "admin-token"))
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=NAME))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        call = Echo(channel).chat()
        await call.write(StringValue(value="here"))
        assert (await call.read()).value == "here"
        stopping = asyncio.ensure_future(stack.aclose())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        await call.write(StringValue(value="still here"))
        assert (await call.read()).value == "still here"
        await call.done_writing()
        await asyncio.wait_for(stopping, 4)


async def test_a_stop_turns_people_away_before_the_background_work_ends(authority: Certificates, keep: Keep) -> None:
    ending, enough = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await enough.wait()

    identity = authority.service("keys")
    async with AsyncExitStack() as stack:
        bound = await stack.enter_async_context(
            serving(ANYWHERE, [SERVICE], [work], identity=identity, verifier=People())
        )
        person = keep(api_channel(bound.api, authority.ca, "admin-token"))
        assert await Echo(person).say("hello") == "hello"
        stopping = asyncio.ensure_future(stack.aclose())
        await ending.wait()
        with pytest.raises(Unavailable, match="about to stop"):
            await Echo(person).say("hello")
        health: Any = health_pb2_grpc.HealthStub(person)
        answer = await health.Check(health_pb2.HealthCheckRequest(service=NAME))
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        agent = Echo(keep(mesh_channel(bound.mesh, authority.agent("agent-1"))))
        assert await agent.say("hello", method="For_agent") == "hello"
        enough.set()
        await stopping


async def test_a_stop_ends_streams_that_do_not_end_themselves(authority: Certificates, keep: Keep) -> None:
    async with serving(ANYWHERE, [SERVICE], identity=authority.service("keys"), verifier=People(), grace=0.1) as bound:
        call = Echo(keep(api_channel(bound.api, authority.ca, "admin-token"))).chat()
        await call.wait_for_connection()
    with pytest.raises(Unavailable):
        await call.read()


async def test_writing_while_a_stream_breaks_is_unavailable(authority: Certificates, keep: Keep) -> None:
    async with serving(ANYWHERE, [SERVICE], identity=authority.service("keys"), verifier=People(), grace=0) as bound:
        echo = Echo(keep(api_channel(bound.api, authority.ca, "admin-token")))
        calls = [echo.chat() for _ in range(30)]
        for call in calls:
            await call.write(StringValue(value="hello"))
            await call.read()
        writing = [asyncio.ensure_future(write_on(call)) for call in calls]
    for error in await asyncio.gather(*writing, return_exceptions=True):
        assert isinstance(error, Unavailable), error


async def write_on(call: Any) -> None:
    while True:
        await call.write(StringValue(value="x" * 1000))


async def test_a_message_larger_than_agreed_is_refused_and_the_next_call_is_answered(admin: Echo) -> None:
    with pytest.raises(ResourceExhausted):
        await admin.say("x" * (MAX_MESSAGE + 1), timeout=20)
    assert await admin.say("hello", timeout=5) == "hello"


async def test_headers_larger_than_agreed_are_refused_and_the_next_call_is_answered(admin: Echo) -> None:
    with pytest.raises(Error):
        await admin.say("hello", timeout=20, metadata=[("x-long", "x" * (3 * MAX_METADATA))])
    assert await admin.say("hello", timeout=5) == "hello"


async def test_half_open_connections_do_not_hold_up_others(bound: Bound, admin: Echo) -> None:
    host, _, port = bound.api.rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(50)]
    try:
        assert await admin.say("hello", timeout=5) == "hello"
    finally:
        for each in silent:
            each.close()


async def test_a_handshake_that_stands_still_is_ended_while_others_are_served(
    authority: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = {"grpc.server_handshake_timeout_ms": 2000}
    monkeypatch.setattr(server, "OPTIONS", [(name, shorter.get(name, value)) for name, value in server.OPTIONS])
    async with serving(ANYWHERE, [SERVICE], identity=authority.service("keys"), verifier=People(), grace=0) as bound:
        host, _, port = bound.mesh.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            ended = asyncio.ensure_future(reader.read(1))
            async with mesh_channel(bound.mesh, authority.agent("agent-1")) as channel:
                assert await Echo(channel).say("hello", method="For_agent", timeout=5) == "hello"
            assert not ended.done()
            assert await asyncio.wait_for(ended, 10) == b""
        finally:
            writer.close()


async def test_background_work_that_fails_ends_the_block_with_its_error() -> None:
    async def fail() -> None:
        raise Unavailable("no")

    with pytest.raises(Unavailable):
        async with working([fail, asyncio.Event().wait]):  # type: ignore[list-item]
            await asyncio.Event().wait()


MAIN = """
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pydantic_settings import SettingsConfigDict
from tests.service.kit.echo import SERVICE, People
from twinline_kit.app import App, run_app
from twinline_kit.settings import ServiceSettings

class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="TWINLINE_ECHO_")

@asynccontextmanager
async def build(settings):
    yield App([SERVICE], People())

run_app(Settings, build)
"""


def start(authority: Certificates, folder: Path, **changes: str) -> "subprocess.Popen[str]":
    settings = {**authority.settings("keys", folder), "database_url": "sqlite:///unused", **changes}
    environment = {f"TWINLINE_ECHO_{key.upper()}": str(value) for key, value in settings.items()}
    command = [sys.executable, "-c", MAIN]
    paths = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    return subprocess.Popen(command, env={**environment, **paths}, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_serves_until_it_is_told_to_stop(authority: Certificates, tmp_path: Path, number: int) -> None:
    with start(authority, tmp_path) as process:
        assert process.stderr
        assert '"msg": "serving"' in process.stderr.readline()
        process.send_signal(number)
        assert '"msg": "stopped serving"' in process.stderr.read()
    assert process.returncode == 0


def test_a_process_that_cannot_start_says_why(authority: Certificates, tmp_path: Path, bound: Bound) -> None:
    with start(authority, tmp_path, api_listen=bound.api) as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"twinline echo: {bound.api} is in use" in errors
    assert "Traceback" not in errors


def test_a_setting_that_is_missing_is_named() -> None:
    paths = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", MAIN], check=False, env=paths, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("twinline echo: TWINLINE_ECHO_DATABASE_URL is not set, ")
    assert "; set them in the environment" in done.stderr
    assert done.stderr.count("\n") == 1
