"""Spans of calls between processes, as an exporter sees them."""

import asyncio
import subprocess
import sys
from subprocess import PIPE
from typing import Any

import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc

CODE = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from google.protobuf.wrappers_pb2 import StringValue
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.service.kit.echo import SERVICE, Echo, People
from twinline_kit import telemetry
from twinline_kit.client import api_channel
from twinline_kit.server import Listen, serving
from twinline_kit.tls import Authority, service_uri

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
telemetry.install(provider)

async def main():
    authority = Authority.create(Path(sys.argv[1]))
    identity = authority.issue(uri=service_uri("keys"), names=["127.0.0.1"], lifetime=timedelta(hours=1))
    async with serving(Listen("127.0.0.1:0", "127.0.0.1:0"), [SERVICE], identity=identity, verifier=People()) as bound:
        async with api_channel(bound.api, identity.ca, "admin-token") as channel:
            echo = Echo(channel)
            with telemetry.tracer().start_as_current_span("root"):
                assert telemetry.current_traceparent()
                await echo.say("hello")
                async for _ in echo.many(StringValue(value="end")): pass
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())

asyncio.run(main())
for span in exporter.get_finished_spans():
    print(span.name.rpartition("/")[2], span.kind.name, format(span.context.trace_id, "x"))
"""


COMMAND = """
from twinline_kit import telemetry
telemetry.start("test", is_command=True)
with telemetry.tracer().start_as_current_span("x"): pass
telemetry.stop()
"""


class Refusing(rpc.TraceServiceServicer):
    """A receiver that takes nothing."""

    def __init__(self) -> None:
        self.asked = 0

    async def Export(self, request: Any, context: Any) -> None:
        self.asked += 1
        await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")


async def test_a_command_asks_a_receiver_once_and_says_nothing_of_it() -> None:
    server, refusing = grpc.aio.server(), Refusing()
    endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    rpc.add_TraceServiceServicer_to_server(refusing, server)  # type: ignore[no-untyped-call]
    await server.start()
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint}
    command = await asyncio.create_subprocess_exec(sys.executable, "-c", COMMAND, env=environment, stderr=PIPE)
    _, said = await command.communicate()
    await server.stop(None)
    assert (command.returncode, refusing.asked, said) == (0, 1, b"")


def test_calls_are_traced_across_the_wire_and_health_checks_not(tmp_path: object) -> None:
    command = [sys.executable, "-c", CODE, f"{tmp_path}/ca"]
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    spans = [line.split() for line in done.stdout.splitlines()]
    found = sorted((name, kind) for name, kind, _ in spans if name != "Check")
    methods = [(name, kind) for name in ("Many", "Unary") for kind in ("CLIENT", "SERVER")]
    assert found == [*methods, ("root", "INTERNAL")]
    assert len({trace for name, _, trace in spans if name != "Check"}) == 1
    assert ("Check", "SERVER") not in [(name, kind) for name, kind, _ in spans]
