"""A suite in a process of its own, as `twinline up` starts it, with what the measurements need of it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from bench.processes import cpu_seconds_of
from bench.rounds import Cost
from twinline.executor.v1 import runs_pb2 as pb
from twinline.executor.v1 import runs_pb2_grpc as rpc
from twinline.executor.v1 import targets_pb2, targets_pb2_grpc
from twinline_kit import tls
from twinline_kit.client import mesh_channel
from twinline_suite.demo import suite_process

RUN_WITHIN = 120.0
BATCH = 1000


@dataclass
class Installation:
    """A running suite."""

    home: Path
    people: grpc.aio.Channel
    """As the administrator, on the API port."""
    services: grpc.aio.Channel
    """As the launcher, on the mesh port."""

    @property
    def mesh(self) -> str:
        """host:port of the mesh port."""
        return f"127.0.0.1:{json.loads((self.home / 'ports.json').read_text())['mesh']}"

    @property
    def authority(self) -> bytes:
        """The CA's certificate."""
        return (self.home / "client" / "ca.pem").read_bytes()

    def cpu_seconds(self) -> float:
        """Processor time the suite used so far."""
        return cpu_seconds_of(int((self.home / "lock").read_text()))

    async def apply_targets(self, targets: list[targets_pb2.Target]) -> None:
        """Make the executor know these hosts."""
        stub = targets_pb2_grpc.TargetServiceStub(self.people)
        for start in range(0, len(targets), BATCH):
            await stub.ApplyTargets(targets_pb2.ApplyTargetsRequest(targets=targets[start : start + BATCH]))

    async def run(self, command: str, selector: str, hosts: int) -> Cost:
        """Run `command`, wait until every result is stored, and tell what it took; raise unless all succeeded."""
        stub = rpc.RunServiceStub(self.people)
        request = pb.StartRunRequest(request_id=str(uuid.uuid4()), command=command, selector=selector)
        before, began = self.cpu_seconds(), time.monotonic()
        run = await stub.StartRun(request)
        async for heard in stub.WatchRun(pb.WatchRunRequest(run=run.id, run_only=True), timeout=RUN_WITHIN):
            run = heard.run
        took = time.monotonic() - began
        if run.counts.succeeded != hosts:
            raise RuntimeError(f"not every task succeeded: {run.counts}")
        return Cost(took, self.cpu_seconds() - before)


@asynccontextmanager
async def installed() -> AsyncIterator[Installation]:
    """Start a suite on a throw-away home; nothing of it is left afterwards."""
    async with suite_process.started() as suite:
        home = suite.home
        certificates = home / "certificates"
        launcher = tls.Identity.load(
            certificates / "launcher.pem", certificates / "launcher.key", home / "authority" / "ca.pem"
        )
        mesh = f"127.0.0.1:{json.loads((home / 'ports.json').read_text())['mesh']}"
        async with suite.channel() as people, mesh_channel(mesh, launcher) as services:
            yield Installation(home, people, services)
