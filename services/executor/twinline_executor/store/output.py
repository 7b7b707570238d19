"""What scripts wrote, in rows that follow each other without a gap."""

import hashlib
from collections.abc import Iterator

import sqlalchemy as sa

from twinline_executor.models import output

ROW = 256 * 1024
"""Bytes in one row at most: a reader never holds more of them than it asked for plus one."""


class OutputStore:
    """Reads output; results are written with the state they belong to, by the result store."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def read(self, task_id: str, offset: int, limit: int) -> bytes:
        """What is stored from `offset` on: `limit` bytes, or fewer at the end."""
        same = output.c.task_id == task_id
        first = sa.select(sa.func.max(output.c.offset)).where(same, output.c.offset <= offset).scalar_subquery()
        query = sa.select(output.c.offset, output.c.data).order_by(output.c.offset)
        query = query.where(same, output.c.offset >= first, output.c.offset < offset + limit)
        with self._engine.connect() as connection:
            pieces = [bytes(data)[max(0, offset - start) :] for start, data in connection.execute(query)]
        return b"".join(pieces)[:limit]

    def digest(self, task_id: str, size: int) -> "hashlib._Hash":
        """A running SHA-256 over the first `size` bytes."""
        running = hashlib.sha256()
        offset = 0
        while offset < size:
            piece = self.read(task_id, offset, min(ROW, size - offset))
            if not piece:
                break
            running.update(piece)
            offset += len(piece)
        return running


def rows(task_id: str, offset: int, data: bytes) -> Iterator[tuple[str, int, bytes]]:
    """The rows that hold `data` from `offset` on: task, offset and data of each."""
    for start in range(0, len(data), ROW):
        yield task_id, offset + start, data[start : start + ROW]
