"""The SSH server of a local v4 machine: OpenSSH's own, on a free loopback port."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from twinline_kit.errors import Unavailable
from twinline_launcher.errors import LaunchRefused, SshdMissing
from twinline_launcher.providers.local import processes
from twinline_launcher.providers.local.folder import Folder
from twinline_launcher.providers.local.processes import MARKER, SERVER_MARKER, Children, Process

HOST = "127.0.0.1"
KEY = "ssh_host_ed25519_key"

_PLACES = "/usr/sbin:/usr/local/sbin:/sbin:/usr/lib/openssh:/usr/bin"
_KEYGEN = "ssh-keygen"
_NO_KEYGEN = "no ssh-keygen on this host, which local v4 machines need: apt-get install openssh-server"
_SEPARATION = Path("/run/sshd")
# OpenSSH overwrites its environment, and with it the mark that it is found by: so it gets a parent that keeps one.
_WATCHED = ["/bin/sh", "-c", '"$@"; exit $?', "twinline-sshd"]
_KEYGEN_LIMIT = 5.0
_PAUSE = 0.01


def username() -> str:
    """Who logs in to local machines: whoever runs this."""
    return pwd.getpwuid(os.geteuid()).pw_name


def find_program(path: str) -> str:
    """OpenSSH's server: `path`, or where it usually is. Raises SshdMissing."""
    if found := shutil.which(path or "sshd", path=None if path else f"{os.environ.get('PATH', '')}:{_PLACES}"):
        return found
    raise SshdMissing("no sshd on this host, which local v4 machines need: apt-get install openssh-server")


def check_programs(path: str) -> None:
    """Raises SshdMissing when this host lacks a program that a v4 machine needs; `path` is that of the server."""
    find_program(path)
    if not shutil.which(_KEYGEN):
        raise SshdMissing(_NO_KEYGEN)


def make_host_key(folder: Folder) -> str:
    """Make the machine's host key, unless it has one; returns the public half."""
    key = folder.path / KEY
    if not key.with_suffix(".pub").exists():
        key.unlink(missing_ok=True)
        command = [_KEYGEN, "-q", "-t", "ed25519", "-N", "", "-C", folder.token, "-f", str(key)]
        try:
            subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=_KEYGEN_LIMIT)
        except FileNotFoundError:
            raise SshdMissing(_NO_KEYGEN) from None
        except subprocess.TimeoutExpired:
            raise Unavailable(f"ssh-keygen made no key within {_KEYGEN_LIMIT:.0f} s: it is asked again") from None
        except subprocess.CalledProcessError as error:
            raise LaunchRefused(f"ssh-keygen failed: {error.stderr.decode(errors='replace').strip()}") from error
    algorithm, material = key.with_suffix(".pub").read_text().split()[:2]
    return f"{algorithm} {material}"


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def start(
    program: str, folder: Folder, port: int, children: Children, environment: Mapping[str, str], *, until: float
) -> Process | None:
    """Start the server and wait until it listens, at the longest until this moment of the monotonic clock.

    None when the port is taken, or when it does not listen; nothing of it is left then.
    """
    if not _is_free(port):
        return None
    if os.geteuid() == 0:
        _SEPARATION.mkdir(mode=0o755, exist_ok=True)
    command = [*_WATCHED, program, *_arguments(folder, port)]
    marked = {**environment, SERVER_MARKER: folder.token}
    process = children.start(command, env=marked, folder=folder.home, log=folder.console)
    while process.is_alive() and time.monotonic() < until:
        if _listens(port, process):
            return process
        time.sleep(_PAUSE)
    stop(folder.token, process)
    return None


def stop(token: str, watcher: Process) -> None:
    """Let nobody new in: end the machine's server, also one that nobody recorded; those who are in stay."""
    if not processes.end_servers(token, watcher):
        raise Unavailable(f"machine {token} has an SSH server that cannot be killed: it is asked again")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of before do not take it
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _listens(port: int, process: Process) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0 and process.is_alive()


def _arguments(folder: Folder, port: int) -> list[str]:
    """For OpenSSH. The mark and the port are on its command line: that is what it shows of itself.

    So the file says the same for every attempt, and one that comes late takes no port of another's.
    """
    configuration = folder.write_file("sshd_config", _configuration(folder).encode())
    marked = f"SetEnv {MARKER}={folder.token} {_quoted(f'HOME={folder.home}')}"
    return ["-D", "-e", "-f", str(configuration), "-o", f"ListenAddress {HOST}:{port}", "-o", marked]


def _configuration(folder: Folder) -> str:
    settings = {
        "HostKey": _quoted(folder.path / KEY),
        "AuthorizedKeysFile": _quoted(folder.path / "authorized_keys"),
        "PidFile": "none",
        "StrictModes": "no",
        # Without PAM a locked account is refused, with it a right to PAM's own files is needed: take what can work.
        "UsePAM": "yes" if _is_locked(username()) else "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "AllowUsers": username(),
        "UseDNS": "no",
        "PrintMotd": "no",
        "MaxStartups": "200",
        "MaxSessions": "200",
    }
    return "".join(f"{name} {value}\n" for name, value in settings.items())


def _quoted(value: Path | str) -> str:
    return f'"{value}"'


def _is_locked(name: str) -> bool:
    try:
        lines = Path("/etc/shadow").read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith(f"{name}:!") for line in lines)
