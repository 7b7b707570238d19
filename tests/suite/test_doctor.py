"""The doctor says what is wrong, and nothing is wrong when it exits with 0."""

import shutil
from pathlib import Path

import pytest

from tests.peers.authority import Certificates
from tests.suite.running import Done, Suite, twinline

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def elsewhere(suite: Suite, tmp_path: Path) -> Path:
    """A copy of what the running suite's clients need, to be spoilt."""
    shutil.copytree(suite.home / "client", tmp_path / "client")
    return tmp_path


def verdicts(done: Done) -> dict[str, bool | None]:
    return {check["name"]: check["ok"] for check in done.data}


def test_everything_answers(suite: Suite) -> None:
    healthy = verdicts(suite.good("doctor", "-o", "json"))
    assert {"certificate", "token", "keys", "agent gateway", "executor", "launcher"} <= set(healthy)
    assert False not in healthy.values()


def test_a_home_that_is_not_there_is_explained(tmp_path: Path) -> None:
    done = twinline(tmp_path / "nowhere", "doctor")
    assert done.code == 6
    assert "does not exist; start the suite with `twinline up`" in done.text


def test_a_suite_that_does_not_run_is_explained(elsewhere: Path) -> None:
    (elsewhere / "client" / "address").write_text("127.0.0.1:1\n")
    done = twinline(elsewhere, "doctor")
    assert done.code == 6
    assert "nothing answers on 127.0.0.1:1" in done.text


def test_a_name_that_nothing_has_is_explained(elsewhere: Path) -> None:
    (elsewhere / "client" / "address").write_text("nowhere.invalid:7400\n")
    done = twinline(elsewhere, "keys", "list")
    assert (done.code, done.errors.count("\n")) == (6, 1)
    assert "nothing answers on nowhere.invalid:7400; start the suite" in done.errors


def test_a_wrong_token_is_told_from_a_dead_service(elsewhere: Path) -> None:
    (elsewhere / "client" / "token").write_text("not-a-token\n")
    done = twinline(elsewhere, "doctor", "-o", "json")
    assert done.code == 3
    assert verdicts(done)["token"] is False
    assert verdicts(done)["keys"] is True


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("token", b"\xff\xfe\n", "token holds no token"),
        ("token", b"two words\n", "token holds no token"),
        ("address", b"somewhere out there\n", "address holds no address (host:port)"),
        ("address", b"", "address holds no address (host:port)"),
    ],
)
def test_a_spoilt_file_is_named_by_the_doctor_and_by_every_command(
    elsewhere: Path, name: str, content: bytes, what: str
) -> None:
    (elsewhere / "client" / name).write_bytes(content)
    done = twinline(elsewhere, "keys", "list")
    assert (done.code, done.errors.count("\n")) == (6, 1)
    assert f"{what}; start the suite again" in done.errors
    diagnosed = twinline(elsewhere, "doctor")
    assert (diagnosed.code, what in diagnosed.text) == (6, True)


def test_another_suite_on_the_port_is_not_trusted(elsewhere: Path, authority: Certificates) -> None:
    (elsewhere / "client" / "ca.pem").write_bytes(authority.ca)
    done = twinline(elsewhere, "doctor")
    assert done.code == 6
    assert "is not the suite of this home" in done.text
