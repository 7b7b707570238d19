"""Secrets at a terminal."""

import os
import pty
import signal
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.suite.running import TWINLINE, Suite, environment

pytestmark = pytest.mark.timeout(180)

ECHO_FLAGS = 3


class Terminal:
    """A person at a terminal, with one command that runs on it."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.main, self.side = pty.openpty()
        command = [*TWINLINE, *arguments]
        self.process = subprocess.Popen(
            command, env=environment(home), stdin=self.side, stdout=self.side, stderr=self.side
        )
        self.seen = b""

    def read_until(self, words: bytes) -> None:
        while words not in self.seen:
            self.seen += os.read(self.main, 4096)

    def end(self) -> int:
        """The exit code, once all that was shown is read."""
        code = self.process.wait(timeout=30)
        os.set_blocking(self.main, False)
        while True:
            try:
                self.seen += os.read(self.main, 4096)
            except BlockingIOError:
                return code

    def shows_what_is_typed(self) -> bool:
        return bool(termios.tcgetattr(self.side)[ECHO_FLAGS] & termios.ECHO)


@pytest.fixture(params=[("credentials", "set", "typed"), ("keys", "upload-material", "site-key")], ids=" ".join)
def asking(suite: Suite, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    """A command that asks for a secret."""
    terminal = Terminal(suite.home, *request.param)
    terminal.read_until(b"(it is not shown)")
    yield terminal
    terminal.process.kill()
    os.close(terminal.main)
    os.close(terminal.side)


def test_ctrl_c_ends_the_wait_and_leaves_the_terminal_as_it_was(asking: Terminal) -> None:
    assert not asking.shows_what_is_typed()
    asking.process.send_signal(signal.SIGINT)
    assert asking.end() == 130
    assert asking.shows_what_is_typed()
    assert asking.seen.count(b"\n") == 1  # the question


@pytest.mark.parametrize("asking", [("credentials", "set", "typed")], indirect=True, ids=" ".join)
def test_a_typed_value_is_a_line_and_not_shown(suite: Suite, asking: Terminal) -> None:
    os.write(asking.main, b"hunter2\n")
    assert asking.end() == 0
    assert b"hunter2" not in asking.seen
    assert "typed" in [each["name"] for each in suite.good("credentials", "list", "-o", "json").data]
