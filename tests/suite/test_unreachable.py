"""A host that cannot be reached: who waits for it is told why, and decides for how long."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.eventually import eventually
from tests.suite.running import TWINLINE, Done, Suite, environment

pytestmark = pytest.mark.timeout(180)

DARK = """
kind: Deployment
name: dark
---
kind: Server
name: dark-1
deployment: dark
template: site
image: debian-v4
cloud_key: site-key
"""


@pytest.fixture(scope="module")
def host(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A v4 server that no security group opens a port of."""
    file = tmp_path_factory.mktemp("dark") / "it.yaml"
    file.write_text(DARK)
    suite.good("apply", "-f", file)
    suite.good("servers", "launch", "dark-1", "--force")
    yield "dark-1"
    suite.good("servers", "terminate", "dark-1")


async def tried(suite: Suite, host: str, *options: str) -> Done:
    """A run on `host`, once that is a target."""

    def is_there() -> Done:
        done = suite("run", "-c", "true", "--on", f"name:{host}", "--reach-timeout", "2s", *options)
        assert "no target matches" not in done.errors
        return done

    return await eventually(is_there, within=20)


async def test_a_run_says_once_why_it_waits_and_gives_up_when_told_to(suite: Suite, host: str) -> None:
    done = await tried(suite, host)
    assert done.code == 6
    assert done.errors.startswith("twinline: dark-1 waits: PORT_UNREACHABLE: ")
    assert done.errors.count("\n") == 1
    assert "1 unreachable" in done.text
    run = suite.good("runs", "list", "--limit", "1", "-o", "json").data[0]["id"]
    ended = suite.good("runs", "cancel", run)
    assert ended.errors == "twinline: it had ended before: nothing was canceled\n"


async def test_a_run_that_waits_is_canceled_and_that_is_said(suite: Suite, host: str) -> None:
    await tried(suite, host)
    command = [*TWINLINE, "run", "-c", "true", "--on", f"name:{host}", "--reach-timeout", "20s"]
    with subprocess.Popen(
        command, env=environment(suite.home), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as waiting:
        assert waiting.stderr is not None
        assert b"dark-1 waits: PORT_UNREACHABLE" in waiting.stderr.readline()
        run = suite.good("runs", "list", "--limit", "1", "-o", "json").data[0]["id"]
        canceled = suite.good("runs", "cancel", run)
        assert canceled.errors == f"twinline: asked for; see it with `twinline runs show {run}`\n"
    assert waiting.returncode == 5


async def test_a_run_whose_result_finds_a_full_disk_can_be_seen_later(suite: Suite, host: str) -> None:
    await tried(suite, host)
    command = [*TWINLINE, "run", "-c", "true", "--on", f"name:{host}", "--reach-timeout", "1s"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, check=False, env=environment(suite.home), stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    last = done.stderr.decode().splitlines()[-1]
    full_disk = "twinline: standard output cannot be written: no space left on device"
    found = re.fullmatch(rf"{full_disk}; see (run-\w+) with `twinline runs show \1`", last)
    assert found, last
    assert done.returncode == 4
    assert suite.good("runs", "show", found[1], "-o", "json").data["run"]["state"] == "STATE_FAILED"
