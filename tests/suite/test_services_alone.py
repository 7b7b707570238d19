"""The four services as four processes, each with its own database and certificate, do the same main job."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from tests.peers.eventually import eventually
from tests.peers.ports import free_port
from tests.suite.running import environment, running, twinline
from twinline_cli import home as client_home
from twinline_kit.client import api_channel
from twinline_suite.demo import processes
from twinline_suite.demo.narrator import Narrator
from twinline_suite.demo.record import Record
from twinline_suite.demo.story import Story

pytestmark = pytest.mark.timeout(300)

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
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


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home that a suite made and left."""
    folder = tmp_path / "home"
    with running(folder) as suite:
        assert suite.stop() == 0
    return folder


def block() -> tuple[str, list[str]]:
    """What the page for operators says to start the four with, at free ports of this host; and those."""
    (text,) = re.findall(r"^```\n(\(\n.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    addresses = sorted(set(re.findall(r"127\.0\.0\.1:\d+", text)))
    free = free_addresses(len(addresses))
    for address, other in zip(addresses, free, strict=True):
        text = text.replace(address, other)
    return text, free


def documented(home: Path) -> dict[str, str]:
    """What that sets for the four on `home`."""
    text = re.sub(r"^for service.*^wait$", "env -0", block()[0], flags=re.MULTILINE | re.DOTALL)
    shell = subprocess.run(["sh", "-c", text], check=True, env=environment(home), capture_output=True, text=True)
    found = dict(each.split("=", 1) for each in shell.stdout.split("\0") if each)
    return {name: value for name, value in found.items() if name.startswith("TWINLINE_")}


def free_addresses(count: int) -> list[str]:
    return [f"127.0.0.1:{free_port()}" for _ in range(count)]


@contextlib.contextmanager
def started(folder: Path, environment: Mapping[str, str], services: Sequence[str] = SERVICES) -> Iterator[None]:
    """The processes of `services`, started in an order that none of them asks for."""
    children = []
    try:
        for service in reversed(services):
            command = [sys.executable, "-m", f"twinline_{service}"]
            with (folder / f"{service}.log").open("wb") as log:
                children.append(subprocess.Popen(command, env={**os.environ, **environment}, stderr=log))
        yield
    finally:
        processes.kill(folder)
        for child in children:
            child.wait(timeout=10)


def serves(folder: Path, service: str) -> bool:
    return serving(folder / f"{service}.log") > 0


def serving(log: Path) -> int:
    """How many services said that they serve."""
    return sum(json.loads(line).get("msg") == "serving" for line in log.read_text().splitlines())


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_all_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "twinline_keys"]
    bare = {name: value for name, value in os.environ.items() if not name.startswith("TWINLINE_")}
    done = subprocess.run(command, check=False, cwd=tmp_path, env=bare, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    for name in ("DATABASE_URL", "CERTIFICATE_FILE", "KEK_FILE", "AUTHORITY_FOLDER", "OBSERVER_TOKEN_FILE"):
        assert f"TWINLINE_KEYS_{name} is not set" in done.stderr


async def test_the_main_job_runs_on_four_processes_that_are_set_as_the_page_for_operators_says(
    tmp_path: Path, home: Path
) -> None:
    record = Record()
    variables = documented(home)
    with started(tmp_path, variables):
        for service in SERVICES:
            await eventually(lambda: serves(tmp_path, service), within=30)  # noqa: B023 - called before the next turn
        client = client_home.client(home)
        async with contextlib.AsyncExitStack() as stack:
            channels = {
                service: await stack.enter_async_context(
                    api_channel(variables[f"TWINLINE_{service.upper()}_API_LISTEN"], client.ca, client.token)
                )
                for service in SERVICES
            }
            await Story(Routed(channels), Narrator(None), record).tell()
    assert [server["states"][-1]["state"] for server in record.servers] == ["TERMINATED"] * 3
    assert record.stranded is not None
    assert record.stranded.resumed


async def test_ctrl_c_stops_the_four_that_the_page_starts_and_meanwhile_their_home_is_refused(
    tmp_path: Path, home: Path
) -> None:
    text, addresses = block()
    log = tmp_path / "log"
    with log.open("wb") as output:
        shell = subprocess.Popen(
            ["sh", "-c", f"trap : INT  # as a person's shell\n{text.replace('.venv/bin/python', sys.executable)}"],
            env=environment(home), stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        await eventually(lambda: serving(log) == len(SERVICES), within=30)
        refused = twinline(home, "up", "--home", home, "--port", "0")
        again = subprocess.run(["sh", "-c", text], check=False, env=environment(home), capture_output=True, timeout=30)
        os.killpg(shell.pid, signal.SIGINT)
        assert shell.wait(timeout=30) == 0
    finally:
        processes.kill(home)
    assert (refused.code, again.returncode) == (3, 1)
    assert (
        refused.errors
        == f"twinline: services run by themselves on {home}; stop them, or choose another home with --home\n"
    )
    assert not any(listens(address) for address in addresses)


async def test_a_home_is_refused_on_any_port_while_a_service_of_it_listens_where_its_suite_did(
    tmp_path: Path, home: Path
) -> None:
    variables = documented(home)
    mesh = variables["TWINLINE_AGENT_GATEWAY_MESH_LISTEN"].rpartition(":")[2]
    ports = {"api": int(mesh) + 1, "mesh": int(mesh)}
    (home / "ports.json").write_text(json.dumps(ports))
    with started(tmp_path, variables, ["agent_gateway"]):
        await eventually(lambda: serves(tmp_path, "agent_gateway"), within=30)
        api, other = (each.rpartition(":")[2] for each in free_addresses(2))
        refused = twinline(home, "up", "--home", home, "--port", api, "--mesh-port", other)
    assert (refused.code, refused.errors.count("\n")) == (3, 1)
    assert f"services run by themselves on {home}, one at 127.0.0.1:{mesh}; stop them, or" in refused.errors
    assert json.loads((home / "ports.json").read_text()) == ports


async def test_an_address_of_one_service_is_told_from_that_of_all(tmp_path: Path, home: Path) -> None:
    variables = documented(home)
    address = variables["TWINLINE_KEYS_API_LISTEN"]
    (home / "client" / "address").write_text(f"{address}\n")
    with started(tmp_path, variables, ["keys"]):
        await eventually(lambda: serves(tmp_path, "keys"), within=30)
        assert twinline(home, "keys", "list").code == 0
        refused = twinline(home, "servers", "list")
        diagnosed = twinline(home, "doctor")
    said = (
        f"{address} is not all of Twinline, or an older one: it has no twinline.launcher.v1.ServerService/ListServers"
    )
    assert (refused.code, refused.errors) == (6, f"twinline: {said}; name the address of a whole suite\n")
    assert diagnosed.code == 6
    assert f"{address} is not all of Twinline: it has no twinline.launcher.v1." in diagnosed.text
