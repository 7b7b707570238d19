"""A suite in a process of its own with one server of each generation: `web-1` is v4, `web-2` is v5."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.peers import databases
from tests.suite.running import Suite, running
from twinline_launcher.providers.local.processes import MARKER, Process, of_machine
from twinline_suite.demo import processes
from twinline_suite.example_files import FOLDER

EXAMPLES: tuple[str | Path, ...] = ("apply", "-f", FOLDER / "catalog.yaml", "-f", FOLDER / "site.yaml")
DATABASES = ("sqlite", "postgresql")
Kind = Callable[[list[bytes]], bool]
"""Tells by the arguments of a process whether it is meant."""


QUICK = {
    "TWINLINE_EXECUTOR_BEAT_INTERVAL": "0.3",
    "TWINLINE_EXECUTOR_BEAT_LIMIT": "1.5",
    "TWINLINE_LAUNCHER_LEASE": "1.5",
}
"""Else a suite that was killed keeps its runs and machines from the next one for ten seconds."""


@contextmanager
def suite_on(database: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[Suite]:
    """A suite on that kind of database; when it has ended, nothing may be left."""
    home = folder / "home"
    with ExitStack() as stack:
        stack.enter_context(databases.in_the_environment(database, request))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in QUICK.items():
            patch.setenv(name, value)
        suite = stack.enter_context(running(home))
        yield suite
        for server in suite.good("servers", "list", "-o", "json").data:
            if server["state"] not in ("SERVER_STATE_INACTIVE", "SERVER_STATE_TERMINATED"):
                suite.good("servers", "terminate", server["name"], "--wait")
        assert marked(home) == []
        assert suite.stop() == 0
        assert processes.gone(home, within=10) == []


@contextmanager
def running_site(database: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[Suite]:
    """Such a suite with both servers operational."""
    with suite_on(database, request, folder) as suite:
        suite.good(*EXAMPLES)
        suite.good("servers", "launch", "web-1", "web-2", "--wait")
        yield suite


def instance(suite: Suite, server: str) -> str:
    """The name that the server's machine has in its cloud."""
    return str(suite.good("servers", "show", server, "-o", "json").data["current"]["cloud_id"])


def processes_of(suite: Suite, server: str) -> list[Process]:
    """The live processes of the server's machine."""
    return of_machine(instance(suite, server))


def is_agent(command: list[bytes]) -> bool:
    """The agent itself, not the loop that starts it again."""
    return command[1:3] == [b"-m", b"twinline_agent"]


def is_ssh_session(command: list[bytes]) -> bool:
    """What serves a connection: its title ends in `@notty`; the listener's does not."""
    return command[0].startswith(b"sshd") and command[0].endswith(b"@notty")


def kill_9(suite: Suite, server: str, is_meant: Kind) -> int:
    """Kill the processes of the server's machine that are meant; how many there were."""
    found = [each.pid for each in processes_of(suite, server) if is_meant(_command_of(each.pid))]
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return len(found)


def _command_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ").split(b"\0")
    except OSError:  # it has ended meanwhile
        return [b""]


def marked(home: Path) -> list[int]:
    """Processes of this home that carry the mark of a machine."""
    found = []
    for pid in processes.of_home(home):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if f"{MARKER}=".encode() in environment:
            found.append(pid)
    return found
