"""One site per kind of database."""

from collections.abc import Iterator

import pytest

from tests.peers.site import DATABASES, running_site
from tests.suite.running import Suite


@pytest.fixture(scope="package", params=DATABASES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """A suite with an operational server of each generation."""
    with running_site(request.param, request, tmp_path_factory.mktemp("site")) as suite:
        yield suite
