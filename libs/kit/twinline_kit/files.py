"""Files that are there whole or not at all, on the disk once the call returns, and with their mode from the start."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PRIVATE = 0o600
"""The mode of what is for its owner alone."""


def write_private(path: Path, data: bytes) -> None:
    """Put a private file there, in place of what is there."""
    write(path, data, mode=PRIVATE)


def write(path: Path, data: bytes, *, mode: int) -> None:
    """Put a file there, in place of what is there."""
    with _drafted(path, data, mode) as draft:
        draft.replace(path)


def create(path: Path, data: bytes, *, mode: int = PRIVATE) -> bool:
    """Put a file there unless one is there, which another process may have made meanwhile. Whether it is ours."""
    with _drafted(path, data, mode) as draft:
        try:
            # A link, unlike a rename, never replaces what is there.
            os.link(draft, path)
        except FileExistsError:
            return False
    return True


@contextmanager
def _drafted(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """The file under a name that nobody else has. It is closed: closing one ends every lock of this process on it."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield draft
        _sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Else a power cut may take the name away, though not the content."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
