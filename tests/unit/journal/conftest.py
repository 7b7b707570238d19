"""Every test of the runner runs on a host with each kind of `sh`."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.journal.host import Host

SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


@pytest.fixture(params=SHELLS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path / "host", str(shutil.which(request.param)))
    yield made
    made.clean()


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder with the tools the runner asks for, for a PATH of its own."""
    from tests.unit.journal.host import TOOLS

    folder = tmp_path / "tools"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(str(shutil.which(tool)))
    return folder
