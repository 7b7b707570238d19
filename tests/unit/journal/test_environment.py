"""A script finds the same environment wherever it runs."""

import getpass
from collections.abc import Mapping

import pytest

from tests.unit.journal.host import Host, framed
from twinline_journal import Journal, run_command

SCRIPT = "#!/bin/sh\nprintf é | wc -m\nenv | grep -Ev '^(PWD|SHLVL|_)=' | sort"
"""Without what a shell that runs it adds."""
LOGIN = {
    "SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22",
    "MAIL": "/var/mail/me",
    "LANG": "POSIX",
    "BASH_FUNC_f%%": "() { :; }",
}
UNIT = {
    "INVOCATION_ID": "1",
    "LC_ALL": "C",
    "PYTHONPATH": "/opt",
    "USER": "other",
    "TMPDIR": "/nowhere",
    "X": "two\nlines",
}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def by_ssh(host: Host, environ: Mapping[str, str]) -> bytes:
    host.environ.update(environ)
    return host.remote(run_command("task-1"), framed(SCRIPT)).stdout


async def by_agent(host: Host, environ: Mapping[str, str]) -> bytes:
    journal = Journal(host.root, shell=str(host.folder / "bin" / "sh"), environ={"PATH": PATH, **environ})
    host.journal = journal
    await host.run(SCRIPT, "task-2")
    return host.output("task-2").replace(b"task-2", b"task-1")


async def test_a_script_finds_the_same_environment_by_ssh_and_by_the_agent(host: Host) -> None:
    kept = {"HOME": "/home/me", "TWINLINE_INSTANCE": "i-1"}
    told = await by_ssh(host, LOGIN | kept)
    assert await by_agent(host, UNIT | kept) == told
    characters, *lines = told.decode().splitlines()
    assert characters == "1"
    user = getpass.getuser()
    base = {"PATH": PATH, "USER": user, "LOGNAME": user, "SHELL": "/bin/sh", "LANG": "C.UTF-8", **kept}
    assert dict(line.split("=", 1) for line in lines) == base


@pytest.mark.parametrize("home", [{}, {"HOME": ""}])
async def test_without_a_home_a_script_has_that_of_the_account(host: Host, home: dict[str, str]) -> None:
    told = await by_agent(host, home)
    expanded = host.remote(f"echo ~{getpass.getuser()}").stdout
    assert b"HOME=" + expanded in told
