"""Executors in processes of their own."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from tests.peers.ports import free_port
from tests.peers.serving import Served
from twinline.executor.v1 import runs_pb2, runs_pb2_grpc
from twinline_kit.client import mesh_channel


class Process:
    """An executor in a process of its own."""

    def __init__(self, authority: Certificates, keys: Served, database_url: str, folder: Path, **environ: str) -> None:
        values = authority.settings("executor", folder) | {
            "mesh_listen": f"127.0.0.1:{free_port()}", "database_url": database_url,
            "keys_address": keys.bound.mesh, "beat_interval": 0.2,
        }  # fmt: skip
        variables = {f"TWINLINE_EXECUTOR_{name.upper()}": str(value) for name, value in values.items()}
        self.address = values["mesh_listen"]
        self.launcher = authority.service("launcher")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "twinline_executor"], env=os.environ | variables | environ
        )

    async def start_run(self, command: str, **fields: Any) -> runs_pb2.Run:
        """Start a run that this process owns."""
        async with mesh_channel(self.address, self.launcher) as channel:
            stub = runs_pb2_grpc.RunServiceStub(channel)
            request = runs_pb2.StartRunRequest(request_id="r1", command=command, targets=["web-1"], **fields)
            return await eventually(lambda: stub.StartRun(request), within=20)

    async def stop(self) -> None:
        """Ask it to end, and wait until it has said what it had to say."""
        self.process.terminate()
        await asyncio.to_thread(self.process.wait, 20)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait()
