"""The suite goes away while somebody waits for servers: they go on, and whoever waits goes on with them or is told."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.suite.running import TWINLINE, Suite, environment, running

pytestmark = pytest.mark.timeout(180)


SLOW = """
kind: Script
name: slow
source: |
  #!/bin/sh
  while [ ! -e {gate} ]; do sleep 0.1; done
---
kind: ServerTemplate
name: slow
boot: [slow]
---
kind: Server
name: slow
deployment: site
template: slow
image: debian-v5
cloud_key: site-key
"""


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """The file for which the boot of `slow` waits."""
    return tmp_path / "gate"


@pytest.fixture
def slow(tmp_path: Path, examples: Path, gate: Path) -> Iterator[Suite]:
    """A suite of its own that has the server `slow`."""
    (tmp_path / "slow.yaml").write_text(SLOW.format(gate=gate))
    with running(tmp_path / "home") as suite:
        suite.good("apply", "-f", examples / "catalog.yaml", "-f", examples / "site.yaml", "-f", tmp_path / "slow.yaml")
        yield suite


def started(suite: Suite, *arguments: str) -> subprocess.Popen[bytes]:
    command = [*TWINLINE, "servers", *arguments]
    return subprocess.Popen(command, env=environment(suite.home), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def steps_until(watching: subprocess.Popen[bytes], state: str) -> list[str]:
    """The states that a watch tells, up to `state`."""
    assert watching.stdout is not None
    seen: list[str] = []
    while not seen or seen[-1] != f"SERVER_STATE_{state}":
        seen.append(json.loads(watching.stdout.readline())["to"])
    return seen


def test_who_waits_for_a_server_goes_on_when_the_suite_is_back(slow: Suite, gate: Path) -> None:
    watching = started(slow, "watch", "slow", "-o", "jsonl")
    steps_until(watching, "INACTIVE")
    launching = started(slow, "launch", "slow", "--wait", "-o", "json")
    before = steps_until(watching, "BOOTING")
    slow.stop(signal.SIGKILL)
    slow.start()
    gate.touch()
    output, errors = launching.communicate(timeout=60)
    assert (launching.returncode, json.loads(output)[0]["state"], errors) == (0, "SERVER_STATE_OPERATIONAL", b"")
    after = steps_until(watching, "OPERATIONAL")
    assert set(before) & set(after) == set()  # no step is told twice
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=20)


def test_who_waits_for_a_server_is_told_that_it_goes_on_without_the_suite(slow: Suite) -> None:
    watching = started(slow, "watch", "slow", "-o", "jsonl")
    steps_until(watching, "INACTIVE")
    launching = started(slow, "launch", "slow", "--wait")
    steps_until(watching, "BOOTING")
    slow.stop()
    said = b"twinline: the suite is away; slow goes on; see it with `twinline servers watch slow`\n"
    for waiting in (launching, watching):
        _, errors = waiting.communicate(timeout=60)
        assert (waiting.returncode, errors) == (4, said)
