"""The real thing: `twinline up` in a process of its own, and commands that talk to it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers.eventually import eventually
from tests.peers.ports import free_port
from twinline_suite.demo import processes

TWINLINE = [sys.executable, "-m", "twinline_suite"]
COMMAND_LIMIT = 90
START_LIMIT = 60.0


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code, and what it said."""

    code: int
    output: bytes
    errors: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.output.decode()

    @property
    def data(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.output)


def environment(home: Path) -> dict[str, str]:
    """The environment of a person whose suite is on `home`."""
    return {**os.environ, "TWINLINE_HOME": str(home)}


def twinline(home: Path, *arguments: str | Path, stdin: bytes = b"") -> Done:
    """Run one command to its end."""
    done = subprocess.run(
        [*TWINLINE, *map(str, arguments)],
        check=False,
        env=environment(home),
        input=stdin,
        capture_output=True,
        timeout=COMMAND_LIMIT,
    )
    return Done(done.returncode, done.stdout, done.stderr.decode())


class Suite:
    """A suite that can be started, stopped and started again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self, *arguments: str | Path, stdin: bytes = b"") -> Done:
        """Run a command against it."""
        return twinline(self.home, *arguments, stdin=stdin)

    def good(self, *arguments: str | Path, stdin: bytes = b"") -> Done:
        """Run a command that must succeed."""
        done = self(*arguments, stdin=stdin)
        assert done.code == 0, f"{arguments} exited with {done.code}: {done.errors}{done.text}"
        return done

    def start(self, *options: str) -> None:
        """Start it and wait until it answers: on the ports it had, or on free ones, unless `options` say more."""
        if not options and not (self.home / "ports.json").exists():
            options = ("--port", str(free_port()), "--mesh-port", str(free_port()))
        command = [*TWINLINE, "up", "--home", str(self.home), *options]
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        asyncio.run(eventually(self._answers, within=START_LIMIT))

    def stop(self, number: int = signal.SIGINT) -> int:
        """End it; its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=30)

    @property
    def said(self) -> Path:
        """The file with all that it wrote."""
        return self.home.with_suffix(".out")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.said.read_text()
        host, _, port = (self.home / "client" / "address").read_text().strip().rpartition(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        return self("keys", "list").code == 0


@contextmanager
def running(home: Path) -> Iterator[Suite]:
    """A suite within the block; afterwards nothing of it is left, its instances included."""
    suite = Suite(home)
    try:
        suite.start()
        yield suite
    finally:
        processes.kill(home)
        if suite.process is not None:
            suite.process.wait(timeout=10)
