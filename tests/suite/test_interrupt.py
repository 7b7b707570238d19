"""Ctrl-C while something goes on."""

import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.eventually import eventually
from tests.suite.running import TWINLINE, Suite, environment

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
