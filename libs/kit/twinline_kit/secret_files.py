"""Files that hold one secret: made with their mode, whole or not at all, and refused when others can read them."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from twinline_kit import files
from twinline_kit.errors import FailedPrecondition

# The owner's group may read: that is how an orchestrator hands a secret to a process that is not root.
TOO_OPEN = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP


class SecretFileUnusable(FailedPrecondition):
    """A file that holds a secret is missing, readable by others, or not what it should be."""

    reason = "SECRET_FILE_UNUSABLE"


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
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.create(path, f"{make()}\n".encode("ascii"))
    except OSError as error:
        raise SecretFileUnusable(
            f"secret file {path} cannot be made: {error.strerror or error}; check the owner of its folder",
            file=str(path),
        ) from error
    return read(path)
