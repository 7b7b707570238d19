"""Where the command line finds a running suite: the folder `client` of TWINLINE_HOME."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "TWINLINE_HOME"

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")
_TOKEN = re.compile(r"[!-~]+")


class ClientFileSpoilt(ValueError):
    """A file of the folder `client` does not hold what it should. The message says what to do."""


@dataclass(frozen=True)
class Client:
    """What it takes to talk to a suite: `host:port`, the CA that signed its certificate (PEM), and a person's token."""

    address: str
    ca: bytes
    token: str


@dataclass(frozen=True)
class ClientFiles:
    """The files that hold what `Client` is made of."""

    address: Path
    ca: Path
    token: Path


def folder() -> Path:
    """TWINLINE_HOME, or the default one."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()
    return default_folder()


def default_folder() -> Path:
    """`twinline` in the user's data folder."""
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "twinline"


def client_files(home: Path | None = None) -> ClientFiles:
    """Where they are in `home`, or in `folder()`."""
    files = (home or folder()) / "client"
    return ClientFiles(files / "address", files / "ca.pem", files / "token")


def client(home: Path | None = None) -> Client:
    """Read the three files. FileNotFoundError names one that is missing, ClientFileSpoilt one that is spoilt."""
    files = client_files(home)
    return Client(
        address=_one_line(files.address, "address (host:port)", _ADDRESS),
        ca=files.ca.read_bytes(),
        token=_one_line(files.token, "token", _TOKEN),
    )


def _one_line(file: Path, what: str, form: re.Pattern[str]) -> str:
    text = file.read_bytes().decode(errors="replace").strip()
    if not form.fullmatch(text):
        raise ClientFileSpoilt(f"{file} holds no {what}; start the suite again: `twinline up` writes the file anew")
    return text
