"""What a first-time user does, command by command."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.suite.running import TWINLINE, Suite, environment

pytestmark = pytest.mark.timeout(180)


def test_applying_twice_changes_nothing(suite: Suite, examples: Path) -> None:
    again = suite.good("apply", "-f", examples / "catalog.yaml", "-f", examples / "site.yaml", "-o", "json").data
    assert {each["result"] for each in again} == {"unchanged"}
    assert {each["kind"] for each in again} >= {"Script", "Image", "SecurityGroup", "ServerTemplate", "Server"}


def test_a_changed_file_changes_only_what_changed(suite: Suite, tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text("kind: Deployment\nname: blue\n---\nkind: Deployment\nname: green\n")
    results = [each["result"] for each in suite.good("apply", "-f", file, "-o", "json").data]
    file.write_text(file.read_text().replace("name: green", "name: green\ndescription: new"))
    assert results == ["created", "created"]
    assert [each["result"] for each in suite.good("apply", "-f", file, "-o", "json").data] == ["unchanged", "changed"]


def test_a_credential_comes_from_standard_input_and_is_never_shown(suite: Suite) -> None:
    suite.good("credentials", "set", "db", stdin=b"hunter2\n")
    listed = suite.good("credentials", "list", "-o", "json")
    assert "db" in [each["name"] for each in listed.data]
    assert b"hunter2" not in listed.output


def test_a_script_has_revisions_and_a_diff(suite: Suite, tmp_path: Path) -> None:
    file = tmp_path / "hello.sh"
    file.write_text("#!/bin/sh\necho one\n")
    suite.good("scripts", "push", file, "--name", "hello")
    file.write_text("#!/bin/sh\necho two\n")
    assert suite.good("scripts", "push", file, "--name", "hello", "-o", "json").data[0]["revision"] == 2
    different = suite("scripts", "diff", "hello")
    assert different.code == 1
    assert "-echo one\n+echo two\n" in different.text
    assert suite.good("scripts", "show", "hello", "--source").output == file.read_bytes()
    suite.good("scripts", "diff", "hello", file)


def test_a_push_says_what_is_unchanged_and_what_lint_finds(suite: Suite, tmp_path: Path) -> None:
    file = tmp_path / "windows.sh"
    file.write_bytes(b"#!/bin/sh\r\necho one\n")
    first = suite.good("scripts", "push", file, "--name", "windows")
    assert first.errors.startswith(f"twinline: {file}:1: warning: ")
    assert first.errors.count("\n") == 1
    file.write_bytes(b"#!/bin/sh\necho one\n")
    assert suite.good("scripts", "push", file, "--name", "windows").errors == ""
    assert suite.good("scripts", "push", file, "--name", "windows").errors == "twinline: unchanged: windows\n"


def test_lint_warns_of_a_script_that_push_takes_with_a_name_only(suite: Suite, tmp_path: Path) -> None:
    file = tmp_path / "nameless.sh"
    file.write_text("#!/bin/sh\n")
    linted = suite.good("scripts", "lint", file)
    assert (linted.text, linted.errors) == (
        f"{file}:1: warning: no name: push it with --name, or give it a header\n",
        "",
    )


def test_a_script_that_is_given_twice_is_refused_at_the_second_place(suite: Suite, tmp_path: Path) -> None:
    for name, line in (("one.sh", "true"), ("two.sh", "false")):
        (tmp_path / name).write_text(f"#!/bin/sh\n# ---\n# RightScript Name: both\n# Inputs: {{}}\n# ...\n{line}\n")
    (tmp_path / "it.yaml").write_text("kind: Script\nfile: one.sh\n---\nkind: Script\nfile: two.sh\n")
    refused = suite("apply", "-f", tmp_path / "it.yaml")
    said = f"{tmp_path}/it.yaml:4: Script both is given at {tmp_path}/it.yaml:1 already; keep one of them"
    assert (refused.code, refused.errors) == (2, f"twinline: {said}\n")
    assert suite.good("scripts", "show", "both", "-o", "json").data["revision"] == 1


def test_a_receiver_of_traces_that_is_not_there_is_no_trouble(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert suite.good("keys", "list").errors == ""


def test_servers_launch_run_and_end(suite: Suite) -> None:
    (launched,) = suite.good("servers", "launch", "web-2", "--wait", "-o", "json").data
    assert launched["state"] == "SERVER_STATE_OPERATIONAL"
    shown = suite.good("servers", "show", "web-2", "-o", "json").data
    assert [step["to"] for step in shown["transitions"]][-1] == "SERVER_STATE_OPERATIONAL"
    agent = suite.good("agents", "show", "web-2", "-o", "json").data
    assert agent["state"] == "STATE_CONNECTED"
    assert suite.good("agents", "show", agent["id"], "-o", "json").data["server"] == "web-2"
    runs_on(suite)
    ended = suite("servers", "terminate", "web-1", "web-2", "--wait", "-o", "json")
    assert [each["state"] for each in ended.data] == ["SERVER_STATE_TERMINATED"]
    assert (ended.code, ended.errors.startswith("twinline: web-1: ")) == (3, True)
    assert suite.good("servers", "terminate", "web-2").errors == "twinline: web-2 was terminated already\n"


def runs_on(suite: Suite) -> None:
    greeting = suite.good("run", "greet-visitor", "--on", "name:web-2", "--input", "VISITOR=text:Eve").text
    assert "Welcome, Eve!" in greeting
    assert "1 of 1 succeeded" in greeting
    visitor = ("--input", "VISITOR=text:Eve")
    planned = suite.good("run", "greet-visitor", "--on", "name:web-2", "--plan", *visitor, "-o", "json").data
    assert [target["name"] for target in planned] == ["web-2"]
    failed = suite("run", "-c", "printf '\\377\\000'; exit 7", "--on", "name:web-2", "-o", "jsonl")
    (task,) = [json.loads(line) for line in failed.text.splitlines()]
    assert (failed.code, task["exit_status"], task["output_base64"]) == (1, 7, "/wA=")
    assert suite.good("runs", "output", task["run"]).output == b"\xff\x00"
    again = suite("runs", "rerun", task["run"], "--only", "failed")
    assert again.code == 1
    limited = suite("run", "-c", "exec sleep 60", "--on", "name:web-2", "--timeout", "1s")
    assert (limited.code, "timed_out" in limited.text) == (4, True)


def test_a_run_on_a_stranger_says_why(suite: Suite) -> None:
    refused = suite("servers", "launch", "web-1", "--input", "SITE_NAME=ignore")
    assert refused.code == 3
    assert "INPUT_MISSING" in refused.errors
    assert refused.errors.count("\n") == 1


def test_a_stranded_end_is_said_at_once(suite: Suite, tmp_path: Path) -> None:
    (tmp_path / "it.yaml").write_text(
        "kind: Script\nname: fails\nsource: |\n  #!/bin/sh\n  exit 3\n"
        "---\nkind: ServerTemplate\nname: unwilling\ndecommission: [fails]\n"
        "---\nkind: Server\nname: stays\ndeployment: site\ntemplate: unwilling\nimage: debian-v5\ncloud_key: site-key\n"
    )
    suite.good("apply", "-f", tmp_path / "it.yaml")
    suite.good("servers", "launch", "stays", "--wait")
    stuck = suite("servers", "terminate", "stays", "--wait")
    assert stuck.code == 1
    assert "stays came to stranded_in_decommissioning; SCRIPT_FAILED at fails" in stuck.errors


def test_what_was_applied_is_told_when_a_script_is_refused(suite: Suite, tmp_path: Path) -> None:
    (tmp_path / "fails.sh").write_text("#!/bin/sh\n# ---\n# Inpust: {}\n# ...\n")
    (tmp_path / "it.yaml").write_text("kind: CloudKey\nname: applied\n---\nkind: Script\nfile: fails.sh\n")
    refused = suite("apply", "-f", tmp_path / "it.yaml", "-o", "json")
    assert refused.data == [{"kind": "CloudKey", "name": "applied", "result": "created"}]
    assert (refused.code, refused.errors.count("line 3"), "fails.sh:3: " in refused.errors) == (2, 0, True)
    linted = suite("scripts", "lint", tmp_path / "fails.sh")
    assert (linted.code, linted.text.count("line 3")) == (2, 0)


def test_the_key_of_a_machine_is_deleted_only_by_force_or_once_that_is_gone(suite: Suite, tmp_path: Path) -> None:
    spec = "deployment: site\ntemplate: site\nimage: debian-v5\n"
    servers = "".join(
        f"---\nkind: CloudKey\nname: {key}\n---\nkind: Server\nname: {name}\n{spec}cloud_key: {key}\n"
        for name, key in (("last", "spare"), ("gone", "old"))
    )
    (tmp_path / "it.yaml").write_text(servers.removeprefix("---\n"))
    suite.good("apply", "-f", tmp_path / "it.yaml")
    suite.good("servers", "launch", "last", "gone")
    refused = suite("keys", "delete", "spare")
    assert (refused.code, "spare is the key of last" in refused.errors) == (3, True)
    suite.good("keys", "delete", "spare", "--force")
    suite.good("servers", "terminate", "last", "gone", "--wait")
    assert "choose another key for gone" in suite.good("keys", "delete", "old").errors


def test_a_passphrase_is_asked_for_by_its_option(suite: Suite, tmp_path: Path) -> None:
    from tests.suite.keypairs import key_pair

    private, public = key_pair(tmp_path, passphrase=b"open sesame")
    suite.good("keys", "import", "sealed", public)
    refused = suite("keys", "upload-material", "sealed", private)
    assert (refused.code, "--passphrase-file" in refused.errors) == (2, True)


def test_bringing_the_missing_half_offers_the_resume(suite: Suite, tmp_path: Path) -> None:
    from tests.suite.keypairs import key_pair

    private, public = key_pair(tmp_path)
    suite.good("keys", "import", "half", public)
    spec = "deployment: site\ntemplate: site\nimage: debian-v4\ncloud_key: half\nsecurity_groups: [ssh]\n"
    (tmp_path / "it.yaml").write_text(f"kind: Server\nname: half-1\n{spec}---\nkind: Server\nname: half-2\n{spec}")
    suite.good("apply", "-f", tmp_path / "it.yaml")
    stranded = suite("servers", "launch", "half-1", "--force", "--wait")
    assert (stranded.code, "KEY_MATERIAL_MISSING" in stranded.errors) == (1, True)
    uploaded = suite.good("keys", "upload-material", "half", private, "-o", "json")
    offer = "half-1 is stranded for want of it; then `twinline servers resume half-1`"
    assert (uploaded.data["has_material"], uploaded.errors) == (True, f"twinline: {offer}\n")
    suite.good("servers", "resume", "half-1", "--wait")
    assert suite.good("keys", "upload-material", "half", private).errors == ""
    suite.good("servers", "terminate", "half-1", "--wait")


def test_watching_begins_with_the_present_state_of_each_server(suite: Suite, tmp_path: Path) -> None:
    (tmp_path / "it.yaml").write_text(
        "kind: Server\nname: past\ndeployment: site\ntemplate: site\nimage: debian-v5\ncloud_key: site-key\n"
        "---\nkind: Server\nname: never\ndeployment: site\ntemplate: site\nimage: debian-v5\ncloud_key: site-key\n"
    )
    suite.good("apply", "-f", tmp_path / "it.yaml")
    suite.good("servers", "launch", "past", "--wait")
    suite.good("servers", "terminate", "past", "--wait")
    command = [*TWINLINE, "servers", "watch", "past", "never", "-o", "jsonl"]
    with subprocess.Popen(command, env=environment(suite.home), stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        seen = [json.loads(watching.stdout.readline()) for _ in range(2)]
        suite.good("servers", "launch", "past")
        seen.append(json.loads(watching.stdout.readline()))
        watching.send_signal(signal.SIGINT)
    suite.good("servers", "terminate", "past", "--wait")
    steps = {(each["server"], each["to"]) for each in seen[:2]}
    assert steps == {("past", "SERVER_STATE_TERMINATED"), ("never", "SERVER_STATE_INACTIVE")}
    assert (seen[2]["server"], seen[2]["to"]) == ("past", "SERVER_STATE_PENDING")
