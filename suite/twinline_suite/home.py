"""The folder that holds everything one suite keeps: data, authority, tokens, logs, and what clients need.

```
version                    the format of this folder
lock                       held by the suite, or the services, that run on it
replica                    the id under which its executor follows runs
ports.json                 where it listens, kept so that agents find it again after a restart
authority/  certificates/  our CA, and what each service shows
data/                      one database a service; instances of the local cloud
tokens/                    of the first people, and the keys that seal and enrol
logs/                      JSON lines
client/                    address, ca.pem, token: all that a client needs
```
"""

import fcntl
import json
import os
import random
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from twinline_cli import home as client_home
from twinline_kit import clock, files
from twinline_kit.errors import FailedPrecondition, InvalidArgument
from twinline_kit.ids import new_id
from twinline_kit.server import Bound
from twinline_kit.tls import Authority, service_uri

FORMAT = 1
"""The version of the layout above. A folder of a higher one is refused."""

SERVICES = ("keys", "agent_gateway", "executor", "launcher")
HOST = "127.0.0.1"
DEFAULT_PORT = 7400

_SERVER = "suite"
_REPLICA = re.compile(r"replica-\w+")
_NAMES = ("localhost", HOST, "::1")
_LIFETIME = timedelta(days=397)
_RENEW_BEFORE = timedelta(days=120)
# Below the ports that the kernel gives to outgoing connections: those may be taken when a suite starts again.
_FREE_PORTS = range(20_000, 32_000)
_ATTEMPTS = 200
_PUBLIC = 0o644


class HomeTooNew(FailedPrecondition):
    """The folder was made by a newer version."""

    reason = "HOME_TOO_NEW"


class HomeInUse(FailedPrecondition):
    """Another suite, or services by themselves, run on the folder."""

    reason = "HOME_IN_USE"


class HomeUnusable(FailedPrecondition):
    """The folder is something else, cannot be written, or a file in it is spoilt."""

    reason = "HOME_UNUSABLE"


class AuthorityLost(FailedPrecondition):
    """The CA's key is gone from a home that was used."""

    reason = "AUTHORITY_LOST"


@dataclass(frozen=True)
class Ports:
    """The two ports on loopback: for people, and for services and agents."""

    api: int
    mesh: int


@dataclass(frozen=True)
class Home:
    """An open home. All its paths are absolute."""

    folder: Path

    @property
    def data(self) -> Path:
        """Databases and instances."""
        return self.folder / "data"

    @property
    def authority(self) -> Path:
        """The CA's key and certificate."""
        return self.folder / "authority"

    @property
    def log(self) -> Path:
        """The suite's own log."""
        return self.folder / "logs" / "suite.log"

    @property
    def admin_token(self) -> Path:
        """The token of the person `admin`."""
        return self.folder / "tokens" / "admin"

    @property
    def observer_token(self) -> Path:
        """The token of the person `observer`."""
        return self.folder / "tokens" / "observer"

    def certificate(self, name: str = _SERVER) -> Path:
        """The certificate of a service, or of the suite's server."""
        return self.folder / "certificates" / f"{name}.pem"

    def key(self, name: str = _SERVER) -> Path:
        """The private key of that certificate."""
        return self.folder / "certificates" / f"{name}.key"

    def replica(self) -> str:
        """An id that no other home has, made at the first start."""
        file = self.folder / "replica"
        if not file.exists():
            files.write(file, f"{new_id('replica')}\n".encode(), mode=_PUBLIC)
        written = _text(file)
        if not _REPLICA.fullmatch(written):
            raise HomeUnusable(f"{file} holds no id; restore it, or delete it: a new one is made")
        return written

    def issue_certificates(self) -> None:
        """Make the CA at the first start, and renew every certificate that is missing or ends soon.

        AuthorityLost when this is not the first start and the CA is gone.
        """
        self._check_authority()
        authority = Authority.create(self.authority)
        for name in (_SERVER, *SERVICES):
            if not self._is_good(name, authority):
                uri = None if name == _SERVER else service_uri(name)
                identity = authority.issue(uri=uri, names=_NAMES, lifetime=_LIFETIME)
                files.write_private(self.key(name), identity.key)
                files.write(self.certificate(name), identity.certificate, mode=_PUBLIC)

    def ports(self, port: int | None, mesh_port: int | None) -> Ports:
        """The ports to listen on: as asked, else as kept, else the default ones; `port` 0 takes free ones once.

        A kept mesh port moves only when another `mesh_port` is asked for, because agents have its address.
        """
        kept = self.kept_ports()
        if kept:
            base = Ports(port or kept.api, kept.mesh)
        elif port == 0:
            base = _free_ports()
        else:
            base = Ports(port or DEFAULT_PORT, (port or DEFAULT_PORT) + 1)
        chosen = Ports(base.api, mesh_port or base.mesh)
        if chosen.api != chosen.mesh:
            return chosen
        if mesh_port:
            raise InvalidArgument(f"--mesh-port {mesh_port} is the API port too; give them two numbers")
        raise InvalidArgument(f"--port {port} is the mesh port of {self.folder}, which agents have; choose another one")

    def keep_ports(self, ports: Ports) -> None:
        """Remember where we listen."""
        files.write(self.folder / "ports.json", json.dumps(vars(ports)).encode(), mode=_PUBLIC)

    def publish(self, bound: Bound) -> None:
        """Write what clients need."""
        client = client_home.client_files(self.folder)
        files.write(client.ca, (self.authority / "ca.pem").read_bytes(), mode=_PUBLIC)
        files.write_private(client.token, self.admin_token.read_bytes())
        files.write(client.address, f"{bound.api}\n".encode(), mode=_PUBLIC)

    def kept_ports(self) -> Ports | None:
        """Where we listened last; None before the first start."""
        file = self.folder / "ports.json"
        try:
            return Ports(**json.loads(file.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            wanted = json.dumps(vars(Ports(DEFAULT_PORT, DEFAULT_PORT + 1)))
            raise HomeUnusable(
                f"{file} holds no ports; restore it, or write where agents know us into it, like {wanted}"
            ) from error

    def _check_authority(self) -> None:
        key, made_later = self.authority / "ca.key", (self.authority / "ca.pem", self.folder / "ports.json")
        if not key.exists() and (any(map(Path.exists, made_later)) or any(self.data.glob("*.db"))):
            text = f"{key} is gone: restore {self.authority} from a backup; agents and certificates trust no other one"
            raise AuthorityLost(text, folder=str(self.folder))

    def _is_good(self, name: str, authority: Authority) -> bool:
        try:
            certificate = x509.load_pem_x509_certificate(self.certificate(name).read_bytes())
            ca = x509.load_pem_x509_certificate(authority.ca_pem)
            certificate.verify_directly_issued_by(ca)
        except (OSError, ValueError, TypeError, InvalidSignature):
            return False
        return self.key(name).exists() and certificate.not_valid_after_utc - clock.now() > _RENEW_BEFORE


@contextmanager
def opened(folder: Path) -> Iterator[Home]:
    """Hold `folder` for one suite, after making it at the first start. Raises HomeInUse, HomeTooNew or HomeUnusable."""
    folder = folder.expanduser().absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(folder):
            _check_format(folder)
            for name in ("data", "authority", "certificates", "tokens", "logs", "client"):
                (folder / name).mkdir(mode=0o700, exist_ok=True)
            yield Home(folder)
    except OSError as error:
        if error.filename and str(error.filename).startswith(str(folder)):
            why = (error.strerror or str(error)).lower()
            raise HomeUnusable(f"cannot use {error.filename}: {why}; choose another home with --home") from error
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # A first start that was killed may have left the lock, and a draft of the version.
    strangers = [
        each.name for each in folder.iterdir() if each.name != "lock" and not each.name.startswith(".version.")
    ]
    if strangers and not (folder / "version").exists():
        raise HomeUnusable(f"{folder} is not empty and no home of Twinline; choose another folder with --home")
    with (folder / "lock").open("a+", encoding="utf-8", errors="backslashreplace") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            who = lock.read().strip()
            if who:
                text = f"another suite (process {who}) runs on {folder}; stop it"
            else:  # whoever starts the services one by one holds the lock as well, and has no one process
                text = f"services run by themselves on {folder}; stop them"
            raise HomeInUse(f"{text}, or choose another home with --home", folder=str(folder)) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _check_format(folder: Path) -> None:
    file = folder / "version"
    if not file.exists():
        files.write(file, f"{FORMAT}\n".encode(), mode=_PUBLIC)
        return
    written = _text(file)
    if not written.isdecimal():
        raise HomeUnusable(
            f"{file} says {written!r}, which is no version; restore it, or choose another home with --home"
        )
    if int(written) > FORMAT:
        made_by = f"{folder} was made by a newer Twinline (format {written}, this one knows {FORMAT})"
        raise HomeTooNew(f"{made_by}; install the newer one, or choose another home with --home", folder=str(folder))


def _free_ports() -> Ports:
    found: list[int] = []
    for port in random.sample(_FREE_PORTS, _ATTEMPTS):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            found.append(port)
        if len(found) == len(vars(Ports(0, 0))):
            return Ports(*found)
    raise FailedPrecondition("found no two free ports; choose one with --port")


def _text(file: Path) -> str:
    """What a file says, without blanks around it; what is no text is written out, so that it can be shown."""
    return file.read_bytes().decode(errors="backslashreplace").strip()
