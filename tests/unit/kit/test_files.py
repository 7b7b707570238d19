"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinline_kit import files


@pytest.fixture
def open_to_all() -> Iterator[None]:
    old = os.umask(0)
    yield
    os.umask(old)


@pytest.mark.usefixtures("open_to_all")
def test_a_private_file_takes_the_place_of_another_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"before")
    path.chmod(0o644)
    files.write_private(path, b"after")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"after", 0o600)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("open_to_all")
def test_a_file_that_another_process_made_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    assert files.create(path, b"first", mode=0o644)
    assert not files.create(path, b"second", mode=0o600)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"first", 0o644)
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError, match="folder"):
        files.write_private(path, b"content")
    assert list(tmp_path.iterdir()) == [path]
