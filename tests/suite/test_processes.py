"""Which processes belong to a home. What is found may be killed, so too little is better than too much."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.peers.eventually import eventually
from twinline_suite.demo import processes


@pytest.mark.parametrize("path", ["", ".", "home", "/"])
def test_a_path_that_would_be_found_everywhere_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no folder of a home"):
        processes.of_home(Path(path))


async def test_a_home_does_not_own_what_belongs_to_one_with_a_longer_name(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", f"{tmp_path}/home2/x", stdin=-1)
    try:
        await eventually(lambda: child.pid in processes.of_home(tmp_path / "home2"))
        assert child.pid not in processes.of_home(tmp_path / "home")
        assert os.getpid() not in processes.of_home(tmp_path)
    finally:
        child.kill()
        await child.wait()
