"""What a whole run of the tests leaves behind: processes that carry its mark, or know its folder."""

import os
import signal
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from twinline_suite.demo import processes

VARIABLE = "TWINLINE_TEST_RUN"
GONE_WITHIN = 20.0
"""Seconds after the last test in which all that the tests started must have ended."""


def mark() -> None:
    """Mark what this process starts from now on, other than what begins with an environment of its own."""
    os.environ.setdefault(VARIABLE, f"/twinline-tests/{uuid.uuid4()}")


def check(session: pytest.Session, folder: Path | None) -> None:
    """Fail the run when anything is left, and end that. `folder` is the one that all temporary ones are in."""
    terminal = session.config.get_terminal_writer()
    homes = [Path(os.environ[VARIABLE]), *([folder] if folder else [])]
    left = _left(homes)
    if left:
        terminal.line(f"\nwaiting for {len(left)} processes of the tests to end")
    deadline = time.monotonic() + GONE_WITHIN
    try:
        while (left := _left(homes)) and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        for pid, command in left.items():
            terminal.line(f"left behind: process {pid}, {command}", red=True)
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    if left and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _left(homes: list[Path]) -> dict[int, str]:
    """Their command lines. Whoever started the tests may know the folder as well."""
    found = {pid for home in homes for pid in processes.of_home(home)} - _ancestors()
    return {pid: _command(pid) for pid in found}


def _ancestors() -> set[int]:
    found: set[int] = set()
    pid = os.getppid()
    while pid > 1:
        found.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "ended by now"
