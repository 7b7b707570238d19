"""The suite is killed while servers launch and boot: one machine each, each boot script once, and they get there."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.peers.eventually import eventually
from tests.suite.running import Suite

pytestmark = pytest.mark.timeout(240)

SERVERS = ("gated-v4", "gated-v5")
LIFE = ["SERVER_STATE_PENDING", "SERVER_STATE_BOOTING", "SERVER_STATE_OPERATIONAL"]
MARK = 'echo "$TWINLINE_TASK" >>"$FOLDER/{step}-$TWINLINE_SERVER"\n'
GATE = 'i=0; until [ -e "$FOLDER/go" ] || [ $i -ge 600 ]; do i=$((i + 1)); sleep 0.1; done\n'
MANIFEST = """\
kind: Script
name: first
file: first.sh
---
kind: Script
name: second
file: second.sh
---
kind: ServerTemplate
name: gated
boot: [first, second]
inputs: {{FOLDER: "text:{folder}"}}
---
kind: Server
name: gated-v4
deployment: site
template: gated
image: debian-v4
cloud_key: site-key
security_groups: [ssh]
---
kind: Server
name: gated-v5
deployment: site
template: gated
image: debian-v5
cloud_key: site-key
"""


@pytest.fixture
def folder(site: Suite, tmp_path: Path) -> Path:
    """Two servers whose second boot script waits for the file `go` there."""
    (tmp_path / "first.sh").write_text(f"#!/bin/sh\n{MARK.format(step='first')}")
    (tmp_path / "second.sh").write_text(f"#!/bin/sh\n{MARK.format(step='second')}{GATE}")
    (tmp_path / "gated.yaml").write_text(MANIFEST.format(folder=tmp_path))
    site.good("apply", "-f", tmp_path / "gated.yaml")
    return tmp_path


def machines(site: Suite, server: str) -> int:
    """How many machines of that name there ever were in the cloud."""
    records = (site.home / "data" / "cloud" / "instances").glob("*/machine.json")
    return [json.loads(record.read_text())["name"] for record in records].count(server)


def starts(folder: Path, step: str, server: str) -> int:
    """How often a boot script started on a server."""
    file = folder / f"{step}-{server}"
    return len(file.read_text().splitlines()) if file.exists() else 0


async def test_it_is_as_if_nothing_had_been(site: Suite, folder: Path) -> None:
    site.good("servers", "launch", *SERVERS)
    site.stop(signal.SIGKILL)
    await asyncio.to_thread(site.start)
    await eventually(lambda: all(starts(folder, "second", server) for server in SERVERS), within=60)
    site.stop(signal.SIGKILL)
    await asyncio.to_thread(site.start)
    (folder / "go").touch()
    for server in SERVERS:
        await eventually(lambda: life(site, server) == LIFE, within=60)  # noqa: B023 - called before the next turn
        assert (starts(folder, "first", server), starts(folder, "second", server)) == (1, 1)
        assert machines(site, server) == 1


def life(site: Suite, server: str) -> list[str]:
    return [step["to"] for step in site.good("servers", "show", server, "-o", "json").data["transitions"]]
