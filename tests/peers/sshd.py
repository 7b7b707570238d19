"""A real OpenSSH server: Debian's sshd on a free loopback port, with a host key and a home of its own.

Runs as root or as an ordinary user; whoever runs the tests is whom one logs in as.
"""

import asyncio
import contextlib
import getpass
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from tests.peers.eventually import eventually
from tests.peers.ports import free_port

CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin yes
MaxSessions 100
MaxStartups 500
PrintMotd no
PrintLastLog no
SetEnv HOME={folder}/home
{more}
"""


@dataclass
class Sshd:
    """A host that scripts run on."""

    folder: Path
    port: int
    more: str = ""
    username: str = field(default_factory=getpass.getuser)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def home(self) -> Path:
        """HOME of whoever logs in, where the journal goes."""
        return self.folder / "home"

    @property
    def host_key(self) -> str:
        """The public host key, one OpenSSH line."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    def journal(self, task_id: str) -> Path:
        """The journal of one task."""
        return self.home / ".twinline" / "journal" / "tasks" / task_id

    def authorize(self, public_keys: Iterable[str]) -> None:
        """Let the owners of these keys in, and nobody else."""
        (self.folder / "authorized_keys").write_text("".join(f"{key.strip()}\n" for key in public_keys))

    def new_host_key(self, kind: str = "ssh-ed25519") -> None:
        """Be another host from the next start on."""
        key = asyncssh.generate_private_key(kind)
        path = self.folder / "host_key"
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(key.export_private_key())
        path.with_suffix(".pub").write_bytes(key.export_public_key())

    async def start(self) -> None:
        """Listen; returns when connections are accepted."""
        config = self.folder / "sshd_config"
        config.write_text(CONFIG.format(port=self.port, folder=self.folder, more=self.more))
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [_program(), "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        accepting: bool = await eventually(self._accepts)
        assert accepting

    def stop(self) -> None:
        """Close the port. Sessions and what they started go on."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=10)
            self.process = None

    def cut_sessions(self) -> int:
        """Kill -9 sshd's process of each session; answer how many there were."""
        sessions = [pid for pid in self._marked() if _name(pid).startswith("sshd")]
        for pid in sessions:
            _kill(pid)
        return len(sessions)

    def kill_all(self) -> None:
        """Kill all that was started on this host."""
        sessions = self._marked()  # while they can be told by their parent
        self.stop()
        everyone = {*sessions, *self._marked()}
        for which in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: nobody is to see the others die
            for pid in everyone:
                _kill(pid, which)

    async def _accepts(self) -> bool:
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.close()
        return True

    def _marked(self) -> list[int]:
        """Processes of sessions: those of this host by their environment, and sshd's own that serve them."""
        mark = f"HOME={self.home}".encode()  # the one variable of a login that scripts have too
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if not entry.name.isdigit():
                    continue
                environment = (entry / "environ").read_bytes().split(b"\0")
                if mark in environment or _serves(entry, str(self.folder / "sshd_config")):
                    found.append(int(entry.name))
        return found


def _serves(entry: Path, config: str) -> bool:
    """Whether this is a child of the sshd with that configuration."""
    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    if not (entry / "cmdline").read_bytes().startswith(b"sshd:"):
        return False
    for _ in range(3):
        command = Path(f"/proc/{parent}/cmdline").read_bytes()
        if config.encode() in command:
            return True
        parent = int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _kill(pid: int, which: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, which)


def _program() -> str:
    found = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise RuntimeError("no sshd for tests: install openssh-server")
    return found


@asynccontextmanager
async def running_sshd(folder: Path, *, more: str = "", host_key: str = "ssh-ed25519") -> AsyncIterator[Sshd]:
    """A host that lets nobody in yet; `more` is added to its configuration. Everything on it ends with the block."""
    (folder / "home").mkdir(parents=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it separates privileges
    sshd = Sshd(folder, free_port(), more)
    sshd.new_host_key(host_key)
    sshd.authorize([])
    await sshd.start()
    try:
        yield sshd
    finally:
        sshd.kill_all()
