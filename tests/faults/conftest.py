"""One site per kind of database for all faults that it must survive."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.counting import Counting
from tests.peers.site import DATABASES, running_site
from tests.suite.running import Suite


@pytest.fixture(scope="package", params=DATABASES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """A suite with an operational server of each generation."""
    with running_site(request.param, request, tmp_path_factory.mktemp("site")) as suite:
        yield suite


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Counting]:
    """A script that counts until the test ends."""
    it = Counting(tmp_path)
    yield it
    it.stop()
