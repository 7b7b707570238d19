"""What a home keeps, and what it refuses to make anew."""

from pathlib import Path

import pytest

from twinline_kit.errors import InvalidArgument
from twinline_suite.home import AuthorityLost, Home, HomeUnusable, Ports, opened


@pytest.fixture
def fresh(tmp_path: Path) -> Home:
    """One that no suite was started on."""
    with opened(tmp_path / "home") as home:
        return home


@pytest.fixture
def used(fresh: Home) -> Home:
    """One that a suite listened for on 7400 and 7401."""
    fresh.issue_certificates()
    fresh.keep_ports(Ports(7400, 7401))
    return fresh


@pytest.mark.parametrize(
    ("port", "mesh_port", "chosen"),
    [
        (None, None, Ports(7400, 7401)),
        (0, None, Ports(7400, 7401)),
        (7500, None, Ports(7500, 7401)),
        (None, 7501, Ports(7400, 7501)),
        (7500, 7501, Ports(7500, 7501)),
    ],
)
def test_a_kept_mesh_port_moves_only_when_another_is_asked_for(
    used: Home, port: int | None, mesh_port: int | None, chosen: Ports
) -> None:
    assert used.ports(port, mesh_port) == chosen


def test_a_fresh_home_takes_the_next_port_for_the_mesh(fresh: Home) -> None:
    assert fresh.ports(None, None) == Ports(7400, 7401)
    assert fresh.ports(7500, None) == Ports(7500, 7501)
    assert fresh.ports(7500, 7600) == Ports(7500, 7600)


def test_one_port_for_both_is_refused(used: Home) -> None:
    with pytest.raises(InvalidArgument, match="--mesh-port 7500 is the API port too"):
        used.ports(7500, 7500)
    with pytest.raises(InvalidArgument, match="--port 7401 is the mesh port of .*, which agents have"):
        used.ports(7401, None)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"api": 7400}'])
def test_ports_that_cannot_be_read_are_not_forgotten(used: Home, content: bytes) -> None:
    (used.folder / "ports.json").write_bytes(content)
    with pytest.raises(HomeUnusable, match=r"ports.json holds no ports; restore it, or write where agents know us"):
        used.ports(None, None)


@pytest.mark.parametrize("left", ["ports.json", "authority/ca.pem", "data/keys.db"])
def test_a_lost_authority_is_not_replaced_in_a_home_that_was_used(fresh: Home, left: str) -> None:
    (fresh.folder / left).touch()
    with pytest.raises(AuthorityLost, match=r"ca.key is gone: restore .*; agents and certificates trust no other one"):
        fresh.issue_certificates()
    assert not (fresh.authority / "ca.key").exists()


def test_a_replica_keeps_its_id_and_a_spoilt_one_is_told(used: Home) -> None:
    assert used.replica() == used.replica()
    (used.folder / "replica").write_bytes(b"\xff\n")
    with pytest.raises(HomeUnusable, match="replica holds no id; restore it, or delete it"):
        used.replica()


def test_a_version_that_is_no_text_is_refused(used: Home) -> None:
    (used.folder / "version").write_bytes(b"\xff\n")
    with pytest.raises(HomeUnusable, match="which is no version"), opened(used.folder):
        pass


def test_a_first_start_that_was_killed_at_once_is_made_again_and_a_stranger_s_folder_is_left_alone(
    tmp_path: Path,
) -> None:
    for left in ("lock", ".version.0f0e0d0c0b0a0908"):
        (tmp_path / left).touch()
    with opened(tmp_path):
        assert (tmp_path / "version").exists()
    (tmp_path / "version").unlink()
    with pytest.raises(HomeUnusable, match="is not empty and no home"), opened(tmp_path):
        pass
