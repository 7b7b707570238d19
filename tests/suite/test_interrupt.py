"""Ctrl-C while something goes on."""

import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.eventually import eventually
from tests.suite.running import TWINLINE, Suite, environment, running

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def host(suite: Suite) -> Iterator[str]:
    """A server that can run things."""
    suite.good("servers", "launch", "web-2", "--wait")
    yield "web-2"
    suite.good("servers", "terminate", "web-2", "--wait")


async def test_a_run_goes_on_after_ctrl_c_and_says_how_to_see_it(suite: Suite, host: str) -> None:
    command = [*TWINLINE, "run", "-c", "echo begun; sleep 3; echo done", "--on", f"name:{host}", "--follow"]
    process = subprocess.Popen(command, env=environment(suite.home), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"web-2 | begun\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    run = errors.decode().removeprefix("twinline: ").split()[0]
    assert f"`twinline runs cancel {run}`" in errors.decode()
    assert errors.count(b"\n") == 1
    await eventually(lambda: suite("runs", "output", run).output == b"begun\ndone\n", within=30)


async def test_a_canceled_run_ends_on_its_host(suite: Suite, host: str) -> None:
    command = [*TWINLINE, "run", "-c", "echo begun; sleep 600", "--on", f"name:{host}", "--follow"]
    process = subprocess.Popen(command, env=environment(suite.home), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    run = suite.good("runs", "list", "--limit", "1", "-o", "json").data[0]["id"]
    suite.good("runs", "cancel", run)
    process.communicate(timeout=60)
    assert process.returncode == 5


def test_a_terminal_sees_progress_and_harmless_output(suite: Suite, host: str) -> None:
    main, side = pty.openpty()
    command = [*TWINLINE, "run", "-c", r"sleep 1; printf 'a\033]0;evil\007b\n'", "--on", f"name:{host}"]
    with subprocess.Popen(command, env=environment(suite.home), stdin=side, stdout=side, stderr=side) as process:
        os.close(side)
        seen = read_all(main)
    assert process.returncode == 0
    assert b"1 running" in seen
    assert rb"a\x1b]0;evil\x07b" in seen
    assert b"\x1b]0;" not in seen


def test_stored_output_is_harmless_on_a_terminal_and_exact_in_a_pipe(suite: Suite, host: str) -> None:
    suite.good("run", "-c", r"printf 'a\033]0;evil\007b'", "--on", f"name:{host}")
    run = suite.good("runs", "list", "--limit", "1", "-o", "json").data[0]["id"]
    main, side = pty.openpty()
    with subprocess.Popen([*TWINLINE, "runs", "output", run], env=environment(suite.home), stdin=side, stdout=side):
        os.close(side)
        assert read_all(main) == b"a\\x1b]0;evil\\x07b\r\n"
    assert suite.good("runs", "output", run).output == b"a\x1b]0;evil\x07b"


def test_steps_are_watched_as_yaml_documents_and_waiting_ends_in_words(suite: Suite) -> None:
    watch = [*TWINLINE, "servers", "watch", "web-2", "-o", "yaml"]
    with subprocess.Popen(watch, env=environment(suite.home), stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        launch = [*TWINLINE, "servers", "launch", "web-2", "--wait"]
        main, side = pty.openpty()
        with subprocess.Popen(launch, env=environment(suite.home), stdin=side, stdout=side, stderr=side) as launching:
            os.close(side)
            seen = os.read(main, 4096)  # progress: it waits
            launching.send_signal(signal.SIGINT)
            seen += read_all(main)
        assert watching.stdout.readline() == b"---\n"
        assert watching.stdout.readline() == b"server: web-2\n"
        watching.send_signal(signal.SIGINT)
    assert (launching.returncode, b"web-2 goes on; see it with `twinline servers watch web-2`" in seen) == (130, True)
    suite.good("servers", "terminate", "web-2", "--wait")


def test_a_run_is_followed_beyond_the_loss_of_the_suite(tmp_path: Path, examples: Path) -> None:
    with running(tmp_path / "home") as suite:
        suite.good("apply", "-f", examples / "catalog.yaml", "-f", examples / "site.yaml")
        suite.good("servers", "launch", "web-2", "--wait")
        command = [*TWINLINE, "run", "-c", "echo begun; sleep 3; echo done", "--on", "name:web-2", "--follow"]
        for returns in (True, False):
            run = subprocess.Popen(command, env=environment(suite.home), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            assert run.stdout is not None
            assert run.stdout.readline() == b"web-2 | begun\n"
            suite.stop(signal.SIGKILL if returns else signal.SIGINT)
            if returns:
                suite.start()
            output, errors = run.communicate(timeout=60)
            if returns:
                assert (run.returncode, output.splitlines()[0]) == (0, b"web-2 | done")
            else:
                assert run.returncode == 4
                assert re.search(r"(run-\w+) goes on; see it with `twinline runs show \1`", errors.decode())


def read_all(terminal: int) -> bytes:
    seen = b""
    while True:
        try:
            seen += os.read(terminal, 4096)
        except OSError:  # the other side is closed
            return seen


def test_output_in_a_pipe_is_what_the_script_wrote(suite: Suite, host: str, tmp_path: Path) -> None:
    shown = suite.good("run", "-c", r"printf 'a\033[1mb\n'", "--on", f"name:{host}")
    assert b"\na\x1b[1mb\n" in shown.output
