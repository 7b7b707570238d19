"""The four services as four processes, each with its own database and certificate, do the same main job."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from twinline_kit.client import api_channel
from twinline_suite.demo import processes
from twinline_suite.demo.narrator import Narrator
from twinline_suite.demo.record import Record
from twinline_suite.demo.story import Story

pytestmark = pytest.mark.timeout(300)

SERVICES = ("keys", "agent_gateway", "executor", "launcher")


class Routed(grpc.aio.Channel):
    """One channel in front of all services, as an ingress would be: the proto package says whose call it is."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel]) -> None:
        self._channels = channels

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._channels[method.split(".")[1]].unary_unary(method, *args, **kwargs)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._channels[method.split(".")[1]].unary_stream(method, *args, **kwargs)

    stream_unary = stream_stream = unary_unary
    get_state = wait_for_state_change = channel_ready = __aenter__ = __aexit__ = close = None  # type: ignore[assignment]


def free_ports() -> tuple[str, str]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}", f"127.0.0.1:{two.getsockname()[1]}"


def variables(folder: Path, certificates: Certificates, ports: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Everything that the four read from their environment."""
    found: dict[str, str] = {}
    for service, (api, mesh) in ports.items():
        settings = certificates.settings(service, folder / service)
        settings |= {"api_listen": api, "mesh_listen": mesh, "database_url": f"sqlite:///{folder / service}.db"}
        if service != "keys":
            settings["keys_address"] = ports["keys"][1]
        if service in ("executor", "launcher"):
            settings["gateway_address"] = ports["agent_gateway"][1]
        found |= {f"TWINLINE_{service}_{name}".upper(): str(value) for name, value in settings.items()}
    return found | {
        "TWINLINE_KEYS_KEK_FILE": str(folder / "kek"),
        "TWINLINE_KEYS_AUTHORITY_FOLDER": str(certificates.folder),
        "TWINLINE_KEYS_ADMIN_TOKEN_FILE": str(folder / "admin"),
        "TWINLINE_KEYS_OBSERVER_TOKEN_FILE": str(folder / "observer"),
        "TWINLINE_LAUNCHER_EXECUTOR_ADDRESS": ports["executor"][1],
        "TWINLINE_LAUNCHER_LOCAL_CLOUD_FOLDER": str(folder / "cloud"),
    }


@contextlib.contextmanager
def started(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """The four processes, started in an order that none of them asks for."""
    children = []
    try:
        for service in reversed(SERVICES):
            command = [sys.executable, "-m", f"twinline_{service}"]
            with (folder / f"{service}.log").open("wb") as log:
                children.append(subprocess.Popen(command, env={**os.environ, **environment}, stderr=log))
        yield
    finally:
        processes.kill(folder)
        for child in children:
            child.wait(timeout=10)


def serves(folder: Path, service: str) -> bool:
    lines = (folder / f"{service}.log").read_text().splitlines()
    return any(json.loads(line).get("msg") == "serving" for line in lines)


async def test_the_main_job_runs_on_four_processes(tmp_path: Path, authority: Certificates) -> None:
    ports = {service: free_ports() for service in SERVICES}
    record = Record()
    with started(tmp_path, variables(tmp_path, authority, ports)):
        for service in SERVICES:
            await eventually(lambda: serves(tmp_path, service), within=30)  # noqa: B023 - called before the next turn
        token = (tmp_path / "admin").read_text().strip()
        async with contextlib.AsyncExitStack() as stack:
            channels = {
                service: await stack.enter_async_context(api_channel(api, authority.ca, token))
                for service, (api, _) in ports.items()
            }
            await Story(Routed(channels), Narrator(None), record).tell()
    assert [server["states"][-1]["state"] for server in record.servers] == ["TERMINATED"] * 3
    assert record.stranded is not None
    assert record.stranded.resumed
