"""The process from its first moment on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Ctrl-C comes while the command's modules are loaded.
INTERRUPTED = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from twinline_cli.entry import main
main()
"""


def test_ctrl_c_while_it_loads_is_silent() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], check=False, capture_output=True, timeout=30)
    assert (done.returncode, done.stderr, done.stdout) == (130, b"", b"")


def test_a_pipe_that_nobody_reads_ends_it_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "twinline_cli", "--help"]
    done = subprocess.run(command, check=False, stdout=writing, stderr=subprocess.PIPE, timeout=30)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_behind_standard_output_is_told_as_one() -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "twinline_cli", "--version"]
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, timeout=30)
    said = b"twinline: standard output cannot be written: no space left on device\n"
    assert (done.returncode, done.stderr) == (4, said)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_standard_stream_that_is_closed_leads_nowhere(closed: str) -> None:
    command = ["sh", "-c", f'exec "$0" -m twinline_cli --help {closed}', sys.executable]
    done = subprocess.run(command, check=False, capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("arguments", ["credentials set A", "keys upload-material k"])
def test_a_secret_from_a_closed_standard_input_is_an_empty_one(arguments: str, tmp_path: Path) -> None:
    command = ["sh", "-c", f'exec "$0" -m twinline_cli {arguments} <&-', sys.executable]
    environment = {**os.environ, "TWINLINE_HOME": str(tmp_path)}
    done = subprocess.run(command, check=False, capture_output=True, env=environment, timeout=30)
    assert done.returncode == 2
    assert done.stderr.endswith(b" is empty; give it on standard input or as a file\n")
