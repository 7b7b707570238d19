"""The main job, as a person starts it."""

import asyncio
import json
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.peers.eventually import eventually
from tests.suite.running import TWINLINE
from twinline_suite.demo import processes

pytestmark = pytest.mark.timeout(400)

V4_LIFE = ["PENDING", "BOOTING", "OPERATIONAL", "DECOMMISSIONING", "SHUTTING_DOWN", "TERMINATED"]
STRAY_LIFE = [*V4_LIFE[:2], "STRANDED_IN_BOOTING", *V4_LIFE[1:]]


@pytest.fixture(scope="module")
def demo() -> Any:
    done = subprocess.run([*TWINLINE, "demo", "-o", "json"], check=False, capture_output=True, timeout=360)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_every_server_goes_through_its_life(demo: dict[str, Any]) -> None:
    lives = {server["name"]: [step["state"] for step in server["states"]] for server in demo["servers"]}
    assert lives == {"web-v4": V4_LIFE, "web-v5": V4_LIFE, "stray-v4": STRAY_LIFE}
    steps = [step for server in demo["servers"] for step in server["states"]]
    assert all(step["time"].endswith("Z") and step["cause"] for step in steps)


def test_servers_say_what_they_are_and_what_they_cost(demo: dict[str, Any]) -> None:
    facts = [(server["name"], server["generation"], server["cloud_key"]) for server in demo["servers"]]
    assert facts == [("web-v4", "v4", "held-key"), ("web-v5", "v5", "found-key"), ("stray-v4", "v4", "found-key")]
    costs = {server["name"]: (server["cost"], server["stranded_cost"]) for server in demo["servers"]}
    assert all(cost > 0 for cost, _ in costs.values())
    assert costs["web-v4"][1] == costs["web-v5"][1] == 0 < costs["stray-v4"][1] < costs["stray-v4"][0]


def test_preflight_refuses_the_stray_and_says_why(demo: dict[str, Any]) -> None:
    (refused,) = demo["preflight"]
    assert refused["server"] == "stray-v4"
    assert [each["reason"] for each in refused["violations"]] == ["KEY_MATERIAL_MISSING"]
    assert "found-key" in refused["violations"][0]["message"]


def test_one_script_gives_the_same_on_both_lines(demo: dict[str, Any]) -> None:
    (run,) = demo["runs"]
    ssh, agent = run["tasks"]
    assert [(task["server"], task["line"]) for task in (ssh, agent)] == [("web-v4", "ssh"), ("web-v5", "agent")]
    same = ("state", "exit_status", "output", "output_sha256")
    assert [ssh[key] for key in same] == [agent[key] for key in same]
    assert (ssh["state"], ssh["exit_status"]) == ("SUCCEEDED", 0)
    assert "Ada!" in ssh["output"]


def test_the_stray_is_stranded_and_resumed_and_nothing_is_left(demo: dict[str, Any]) -> None:
    assert demo["stranded"] == {
        "server": "stray-v4",
        "reason": "KEY_MATERIAL_MISSING",
        "failed_step": "configure-site",
        "resumed": True,
    }
    assert demo["left_processes"] == 0
    assert set(demo) == {"servers", "preflight", "runs", "stranded", "left_processes"}


async def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    demo = await asyncio.create_subprocess_exec(
        *TWINLINE, "demo", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert demo.stdout is not None
    await demo.stdout.readuntil(b"booting")
    demo.send_signal(signal.SIGINT)
    _, errors = await demo.communicate()
    assert demo.returncode == 130
    assert b"Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
    await eventually(lambda: processes.of_home(tmp_path) == [])


def test_a_machine_without_sshd_is_told_so_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINLINE_LAUNCHER_SSHD_PROGRAM", "/nowhere/sshd")
    done = subprocess.run([*TWINLINE, "demo"], check=False, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (3, b"", 1)
    assert b"apt-get install openssh-server" in done.stderr


def test_the_story_is_told_in_plain_text_to_a_pipe() -> None:
    done = subprocess.run([*TWINLINE, "demo"], check=False, capture_output=True, timeout=360)
    assert done.returncode == 0, done.stderr.decode()
    told = done.stdout.decode()
    assert "\x1b" not in told
    assert "equal, byte for byte" in told
    assert "0 processes left behind" in told
    assert max(map(len, told.splitlines())) < 100
    assert not [each for each in Path(tempfile.gettempdir()).glob("twinline-demo-*") if processes.of_home(each)]
