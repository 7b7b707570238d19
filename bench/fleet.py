"""Simulated agents: one mTLS connection each, every order answered at once, nothing spawned.

Run as a process of its own (`python -m bench.fleet`), because agents that shared the server's process would share its
interpreter and its garbage collector. Steered over standard input: the first line connects, each further line asks how
things stand; answers are one JSON object a line.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc

from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline.agent_gateway.v1 import agents_pb2_grpc as rpc
from twinline_kit import process

CHANNEL_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
OUTPUT = b"ok\n"


@dataclass(frozen=True)
class Agent:
    """What one agent presents; certificate and key are PEM."""

    agent_id: str
    certificate: str
    key: str


@dataclass(frozen=True)
class Fleet:
    """Which server these agents dial."""

    address: str
    authority: str
    agents: list[Agent]

    def save(self, path: Path) -> None:
        """Write it for the process that will run it; it holds private keys, so for this user only."""
        with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            json.dump(asdict(self), file)

    @classmethod
    def load(cls, path: Path) -> Fleet:
        """Read what `save` wrote."""
        given = json.loads(path.read_text())
        return cls(given["address"], given["authority"], [Agent(**agent) for agent in given["agents"]])


def answer(delivery: pb.Delivery) -> pb.TaskReport:
    """The report of a script that ran in no time and printed one line."""
    return pb.TaskReport(
        task_id=delivery.task_id,
        state=pb.TaskReport.STATE_FINISHED,
        end=pb.TaskReport.END_EXITED,
        output_size=len(OUTPUT),
        offset=delivery.from_offset,
        data=OUTPUT[delivery.from_offset :],
    )


class Held:
    """The fleet's streams, and how many were welcomed and lost."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.welcomed = 0
        self.lost = 0
        self._settled = asyncio.Event()

    def connect(self) -> list[asyncio.Task[None]]:
        """Dial with every agent at once."""
        return [asyncio.create_task(self._hold(agent)) for agent in self._fleet.agents]

    async def settled(self) -> None:
        """Wait until each agent is welcome or lost."""
        await self._settled.wait()

    async def _hold(self, agent: Agent) -> None:
        try:
            await self._talk(agent)
        except (ConnectionError, grpc.aio.AioRpcError) as error:
            print(f"{agent.agent_id}: {error!r}", file=sys.stderr)
        self.lost += 1
        self._note()

    def _note(self) -> None:
        if self.welcomed + self.lost >= len(self._fleet.agents):
            self._settled.set()

    async def _talk(self, agent: Agent) -> None:
        """One stream, from hello until it ends."""
        credentials = grpc.ssl_channel_credentials(
            self._fleet.authority.encode(), agent.key.encode(), agent.certificate.encode()
        )
        async with grpc.aio.secure_channel(self._fleet.address, credentials, options=CHANNEL_OPTIONS) as channel:
            call = rpc.AgentServiceStub(channel).Connect(wait_for_ready=True)
            await call.write(pb.AgentMessage(hello=pb.Hello(version="bench")))
            first = await call.read()
            if not isinstance(first, pb.GatewayMessage) or first.WhichOneof("body") != "welcome":
                raise ConnectionError(f"not welcomed: {await call.code()}")
            self.welcomed += 1
            self._note()
            while isinstance(message := await call.read(), pb.GatewayMessage):
                if message.orders.deliveries:
                    reports = [answer(delivery) for delivery in message.orders.deliveries]
                    await call.write(pb.AgentMessage(report=pb.Report(reports=reports)))


def cpu_seconds() -> float:
    """Processor time this process used so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def read_lines() -> asyncio.StreamReader:
    """Standard input as a stream of lines."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    return lines


async def obey(fleet: Fleet) -> None:
    """Connect on the first line of input, then say on each line how things stand; end with the input."""
    lines = await read_lines()
    held = Held(fleet)
    await lines.readline()
    began, before = time.monotonic(), cpu_seconds()
    tasks = held.connect()
    await held.settled()
    connecting = {"seconds": time.monotonic() - began, "connect_cpu": cpu_seconds() - before}
    while True:
        print(json.dumps(connecting | {"welcomed": held.welcomed, "lost": held.lost, "cpu": cpu_seconds()}), flush=True)
        if not await lines.readline():
            break
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    """Run the fleet described by the file named on the command line."""
    process.use_uvloop_if_there()
    process.allow_many_files()
    asyncio.run(obey(Fleet.load(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
