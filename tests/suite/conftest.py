"""One suite for all tests that do not need their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.suite.running import Suite, running
from twinline_suite.example_files import FOLDER


@pytest.fixture(scope="package")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """A running suite that has the examples."""
    with running(tmp_path_factory.mktemp("suite") / "home") as it:
        it.good("apply", "-f", FOLDER / "catalog.yaml", "-f", FOLDER / "site.yaml")
        yield it


@pytest.fixture
def examples() -> Path:
    """The examples' folder."""
    return FOLDER
