"""Where the command line finds a running suite: the folder `client` of TWINLINE_HOME."""

import os
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "TWINLINE_HOME"


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
    """TWINLINE_HOME, or `twinline` in the user's data folder."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "twinline"


def client_files(home: Path | None = None) -> ClientFiles:
    """Where they are in `home`, or in `folder()`."""
    files = (home or folder()) / "client"
    return ClientFiles(files / "address", files / "ca.pem", files / "token")


def client(home: Path | None = None) -> Client:
    """Read the three files. FileNotFoundError names the one that is missing."""
    files = client_files(home)
    return Client(
        address=files.address.read_text(encoding="utf-8").strip(),
        ca=files.ca.read_bytes(),
        token=files.token.read_text(encoding="utf-8").strip(),
    )
