"""Files that hold one secret: made with their mode, whole or not at all, and refused when others can read them."""

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from twinline_keys.errors import SecretFileUnusable

# The owner's group may read: that is how an orchestrator hands a secret to a process that is not root.
TOO_OPEN = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP


def read(path: Path) -> str:
    """The secret in `path`. Raises SecretFileUnusable when the file is missing, empty or open to others."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read()
    except OSError as error:
        raise SecretFileUnusable(
            f"secret file {path} cannot be read: {(error.strerror or str(error)).lower()}; restore it from your backup",
            file=str(path),
        ) from error
    if mode & TOO_OPEN:
        raise SecretFileUnusable(
            f"secret file {path} has mode {mode:04o}, open to others: run chmod 600 on it, and replace the secret "
            f"if somebody may have read it",
            file=str(path),
        )
    try:
        text = content.decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise SecretFileUnusable(f"secret file {path} holds no text: restore it from your backup", file=str(path))
    return text


def read_or_make(path: Path, make: Callable[[], str]) -> str:
    """The secret in `path`, which `make` gives when there is no such file yet."""
    try:
        if not path.exists():
            _make(path, make())
    except OSError as error:
        raise SecretFileUnusable(
            f"secret file {path} cannot be made: {error.strerror or error}; check the owner of its folder",
            file=str(path),
        ) from error
    return read(path)


def _make(path: Path, secret: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{secret}\n")
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, never replaces what a replica that started at the same time has made.
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()
