"""A suite on its home: one at a time, on its ports, and again with all it knew."""

import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.peers.ports import free_port
from tests.peers.postgres import Server
from tests.suite.running import Suite, running, twinline
from twinline_suite.demo import processes
from twinline_suite.home import Ports, opened

pytestmark = pytest.mark.timeout(300)


def test_two_suites_cannot_share_a_home(suite: Suite) -> None:
    second = twinline(suite.home, "up", "--home", suite.home, "--port", "0")
    assert second.code == 3
    assert suite.process is not None
    assert second.errors.startswith(f"twinline: another suite (process {suite.process.pid}) runs on {suite.home}")
    assert second.errors.count("\n") == 1


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = twinline(
            tmp_path / "home", "up", "--home", tmp_path / "home", "--port", str(port), "--mesh-port", "1"
        )
    assert refused.code == 3
    assert refused.errors.startswith(f"twinline: 127.0.0.1:{port} is in use")
    assert refused.errors.endswith("or choose another port with --port\n")
    assert refused.errors.count("\n") == 1


def test_a_mesh_port_in_use_is_named_by_its_option(tmp_path: Path) -> None:
    api = free_port()
    with socket.create_server(("127.0.0.1", 0)) as other:
        mesh = other.getsockname()[1]
        with opened(tmp_path / "home") as home:
            home.issue_certificates()
            home.keep_ports(Ports(api, mesh))
        refused = twinline(tmp_path / "home", "up", "--home", tmp_path / "home")
    assert (refused.code, refused.errors.count("\n")) == (3, 1)
    assert refused.errors.startswith(f"twinline: 127.0.0.1:{mesh} is in use")
    assert refused.errors.endswith("or choose another port with --mesh-port\n")


def test_agents_find_a_suite_whose_api_moved_and_are_lost_when_the_mesh_does(tmp_path: Path, examples: Path) -> None:
    api, mesh = free_port(), free_port()
    with running(tmp_path / "home") as suite:
        suite.good("apply", "-f", examples / "catalog.yaml", "-f", examples / "site.yaml")
        suite.good("servers", "launch", "web-2", "--wait")
        suite.stop()
        suite.start("--port", str(api))
        assert (suite.home / "client" / "address").read_text() == f"127.0.0.1:{api}\n"
        suite.good("run", "-c", "true", "--on", "name:web-2")
        assert "agents launched before" not in suite.said.read_text()
        suite.stop()
        suite.start("--mesh-port", str(mesh))
        assert re.search(rf"agents launched before know port \d+ and do not find {mesh}: ", suite.said.read_text())


def test_the_home_is_named_for_the_next_terminal_though_this_one_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINLINE_HOME", str(tmp_path / "home"))
    with running(tmp_path / "home") as suite:
        assert f"  export TWINLINE_HOME={tmp_path / 'home'}\n" in suite.said.read_text()


def test_a_lost_sealing_key_is_to_be_restored(tmp_path: Path) -> None:
    with running(tmp_path / "home") as suite:
        suite.stop()
        (suite.home / "tokens" / "kek").unlink()
        refused = suite("up", "--home", suite.home)
        assert (refused.code, refused.errors.count("\n")) == (3, 1)
        assert "tokens/kek cannot be read: no such file or directory; restore it from your backup" in refused.errors


def test_what_it_prints_can_be_typed_where_twinline_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = Path(sys.executable).parent
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with running(tmp_path / "my home") as suite:
        printed = suite.said.read_text().partition("In another terminal:")[2]
        commands = [line.strip() for line in printed.strip().splitlines()][:3]
        assert commands[0] == f"export PATH={scripts}:$PATH"
        typed = subprocess.run(["sh", "-c", "\n".join(commands)], check=False, capture_output=True, text=True)
        assert (typed.returncode, typed.stderr) == (0, "")
        suite.stop()
        suite.said.write_text("")
        monkeypatch.setenv("PATH", f"{scripts}:/usr/bin:/bin")
        suite.start()
        assert "export PATH" not in suite.said.read_text()


def test_a_setting_that_is_no_number_is_named_in_our_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINLINE_EXECUTOR_SSH_CONNECTING", "many")
    refused = twinline(tmp_path / "home", "up", "--home", tmp_path / "home", "--port", "0")
    text = "twinline: TWINLINE_EXECUTOR_SSH_CONNECTING is no whole number; set it in the environment\n"
    assert (refused.code, refused.errors) == (2, text)


def test_a_home_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("99\n")
    refused = twinline(tmp_path, "up", "--home", tmp_path, "--port", "0")
    assert refused.code == 3
    assert "made by a newer Twinline (format 99" in refused.errors
    assert "install the newer one" in refused.errors


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all my work")
    refused = twinline(tmp_path, "up", "--home", tmp_path, "--port", "0")
    assert refused.code == 3
    assert "is not empty and no home of Twinline" in refused.errors
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_stops_cleanly_and_starts_again_where_it_was(tmp_path: Path, number: int) -> None:
    with running(tmp_path / "home") as suite:
        suite.good("keys", "create", "kept")
        address = (suite.home / "client" / "address").read_text()
        assert suite.stop(number) == 0
        assert suite("keys", "list").code == 6
        suite.start()
        assert [key["name"] for key in suite.good("keys", "list", "-o", "json").data] == ["kept"]
        assert (suite.home / "client" / "address").read_text() == address


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_servers_go_on_while_the_suite_is_away(tmp_path: Path, examples: Path, number: int) -> None:
    with running(tmp_path / "home") as suite:
        suite.good("apply", "-f", examples / "catalog.yaml", "-f", examples / "site.yaml")
        suite.good("servers", "launch", "web-1", "web-2", "--wait")
        suite.stop(number)
        suite.start()
        states = {each["name"]: each["state"] for each in suite.good("servers", "list", "-o", "json").data}
        assert states == {"web-1": "SERVER_STATE_OPERATIONAL", "web-2": "SERVER_STATE_OPERATIONAL"}
        run = suite.good("run", "-c", "cat $HOME/site/site.conf", "--on", "deployment:site", "-o", "json").data
        assert {task["output"] for task in run["tasks"]} == {"name=Twinline\ngreeting=Welcome\n"}
        suite.good("servers", "terminate", "web-1", "web-2", "--wait")
        assert processes.gone(suite.home / "data" / "cloud", within=10) == []


def test_certificates_are_renewed_at_start_when_they_are_gone(tmp_path: Path) -> None:
    with running(tmp_path / "home") as suite:
        suite.stop()
        shutil.rmtree(suite.home / "certificates")
        suite.start()
        suite.good("doctor")


def test_a_machine_without_sshd_is_told_so(tmp_path: Path, examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINLINE_LAUNCHER_SSHD_PROGRAM", "/nowhere/sshd")
    with running(tmp_path / "home") as suite:
        suite.good("apply", "-f", examples / "catalog.yaml", "-f", examples / "site.yaml")
        failed = suite("servers", "launch", "web-1", "--wait")
    assert failed.code == 3
    assert "SSHD_MISSING: no sshd on this host" in failed.errors
    assert "apt-get install openssh-server" in failed.errors
    assert failed.errors.count("\n") == 1


def test_every_service_can_keep_its_data_in_postgresql(
    tmp_path: Path, examples: Path, postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        for service in ("KEYS", "AGENT_GATEWAY", "EXECUTOR", "LAUNCHER"):
            url = stack.enter_context(postgres_server.database())
            monkeypatch.setenv(f"TWINLINE_{service}_DATABASE_URL", url)
        suite = stack.enter_context(running(tmp_path / "home"))
        suite.good("apply", "-f", examples / "catalog.yaml", "-f", examples / "site.yaml")
        suite.good("servers", "launch", "web-1", "web-2", "--wait")
        suite.good("run", "greet-visitor", "--on", "deployment:site", "--input", "VISITOR=text:Ada")
        suite.good("servers", "terminate", "web-1", "web-2", "--wait")
        assert not list((suite.home / "data").glob("*.db"))
