"""The bare transport: a tuned grpc.aio server that sends one order down each stream and counts the answers.

It speaks the agents' own messages with the same mTLS, and says in them all that an agent needs to run a task, so that
the same simulated agents do the same for both sides of the comparison; it stores nothing, knows nobody and checks
nothing but the certificate. As many writers as the gateway has: a task for each stream costs a fifth more.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import grpc

from bench.fleet import cpu_seconds, read_lines
from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline.agent_gateway.v1 import agents_pb2_grpc as rpc
from twinline_agent_gateway.streams import WRITERS
from twinline_journal.spec import MAX_OUTPUT
from twinline_kit import process, tls
from twinline_kit.ids import new_id, new_ids

OPTIONS = [
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_concurrent_streams", 100_000),
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 200_000),
]
Stream = grpc.aio.ServicerContext[pb.AgentMessage, pb.GatewayMessage]
Enrolling = grpc.aio.ServicerContext[pb.EnrollRequest, pb.EnrollResponse]
Renewing = grpc.aio.ServicerContext[pb.RenewRequest, pb.EnrollResponse]


class Echo(rpc.AgentServiceServicer):
    """Holds streams and runs fan-outs over them."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self._left = 0
        self._done = asyncio.Event()

    async def Enroll(self, request: pb.EnrollRequest, context: Enrolling) -> pb.EnrollResponse:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the bare transport enrols nobody")

    async def Renew(self, request: pb.RenewRequest, context: Renewing) -> pb.EnrollResponse:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the bare transport renews nothing")

    async def Connect(self, requests: Any, context: Stream) -> None:  # type: ignore[override]  # writes by itself
        await context.read()
        await context.write(pb.GatewayMessage(welcome=pb.Welcome()))
        self.streams.append(context)
        while isinstance(await context.read(), pb.AgentMessage):
            self._left -= 1
            if self._left == 0:
                self._done.set()

    async def fan_out(self, script: bytes) -> float:
        """Seconds until the last of one answer from each stream."""
        self._left = len(self.streams)
        self._done.clear()
        began = time.monotonic()
        waiting = iter(zip(new_ids("task", len(self.streams)), self.streams, strict=True))
        work = pb.Work(script=script, env={"TWINLINE_RUN": new_id("run")}, max_output=MAX_OUTPUT)
        work.timeout.seconds, work.kill_after.seconds = 3600, 10

        async def write() -> None:
            for task_id, stream in waiting:
                await stream.write(_order(task_id, work))

        async with asyncio.TaskGroup() as group:
            for _ in range(WRITERS):
                group.create_task(write())
        await asyncio.wait_for(self._done.wait(), 120)
        return time.monotonic() - began


def _order(task_id: str, work: pb.Work) -> pb.GatewayMessage:
    message = pb.GatewayMessage()
    delivery = message.orders.deliveries.add(task_id=task_id, work=work)
    delivery.work.env["TWINLINE_TASK"] = task_id
    delivery.work.env["TWINLINE_SERVER"] = "bench"
    return message


async def serve(folder: Path) -> None:
    """Serve on a free port with the identity in `folder`; fan out once for each line of input."""
    identity = tls.Identity.load(folder / "server.pem", folder / "server.key", folder / "ca.pem")
    credentials = grpc.ssl_server_credentials(
        [(identity.key, identity.certificate)], root_certificates=identity.ca, require_client_auth=True
    )
    server = grpc.aio.server(options=OPTIONS)
    echo = Echo()
    rpc.add_AgentServiceServicer_to_server(echo, server)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    print(json.dumps({"address": f"127.0.0.1:{port}"}), flush=True)
    lines = await read_lines()
    while line := await lines.readline():
        before = cpu_seconds()
        took = await echo.fan_out(json.loads(line)["script"].encode())
        print(json.dumps({"seconds": took, "cpu": cpu_seconds() - before}), flush=True)
    await server.stop(None)


def main() -> None:
    """Serve with the identity in the folder named on the command line."""
    process.use_uvloop_if_there()
    process.allow_many_files()
    asyncio.run(serve(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
