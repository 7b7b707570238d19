"""Services as processes of their own, several of a kind on one database, and what stands before them."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc.aio

from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from tests.peers.ports import free_port
from tests.peers.relay import Relay
from twinline_kit.client import api_channel, mesh_channel


class Replica:
    """One process of a service, on ports that are known before it runs."""

    def __init__(self, service: str, certificates: Certificates, folder: Path, **values: Any) -> None:
        self.api_port, self.mesh_port = free_port(), free_port()
        self._certificates = certificates
        self._command = [sys.executable, "-m", f"twinline_{service}"]
        self._log = folder / f"{service}.log"
        settings = certificates.settings(service, folder) | {
            "api_listen": f"127.0.0.1:{self.api_port}", "mesh_listen": f"127.0.0.1:{self.mesh_port}", **values,
        }  # fmt: skip
        self._variables = {f"TWINLINE_{service}_{name}".upper(): str(value) for name, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def mesh(self) -> str:
        """host:port for services and agents."""
        return f"127.0.0.1:{self.mesh_port}"

    def start(self, variables: Mapping[str, str]) -> None:
        """Start it with these variables beside its own settings."""
        with self._log.open("ab") as log:
            environment = {**os.environ, **variables, **self._variables}
            self._process = subprocess.Popen(
                self._command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    async def serves(self, within: float = 60.0) -> None:
        """Wait until it accepts connections."""

        async def accepts() -> bool:
            _, writer = await asyncio.open_connection("127.0.0.1", self.mesh_port)
            writer.close()
            return True

        has_started: bool = await eventually(accepts, within=within)
        assert has_started

    def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)

    def as_service(self, name: str) -> grpc.aio.Channel:
        """A mesh channel on which the caller is the service `name`."""
        return mesh_channel(self.mesh, self._certificates.service(name))

    def as_person(self, token: str) -> grpc.aio.Channel:
        """An API channel of whoever has that token."""
        return api_channel(f"127.0.0.1:{self.api_port}", self._certificates.ca, token)


class Balancer(Relay):
    """Leads each new connection to the first of its ports where somebody listens."""

    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__(ports[0])
        self._ports = ports

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for port in self._ports:
            try:
                _, probe = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            probe.close()
            self._target_port = port
            break
        await super()._serve(reader, writer)
