"""Scripts on disk."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from twinline_executor.errors import ScriptNotFound
from twinline_executor.inputs import Declaration
from twinline_executor.models import scripts
from twinline_executor.rows import Script

_LISTED = [column for column in scripts.c if column.name != "source"]


class ScriptStore:
    """Scripts and their revisions, which never change once made."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def push(
        self, name: str, *, source: bytes, digest: str, description: str, inputs: Sequence[Declaration], at: datetime
    ) -> Script:
        """Add a revision, unless the newest one has the same text."""
        while True:
            try:
                return self._push(Script(name, 0, description, tuple(inputs), source, digest, at))
            except IntegrityError:
                continue  # somebody else added this number: look again

    def _push(self, script: Script) -> Script:
        with self._engine.begin() as connection:
            newest = connection.execute(_newest(script.name)).first()
            if newest is not None and newest.digest == script.digest:
                return _script(newest)
            revision = newest.revision + 1 if newest is not None else 1
            values = asdict(script) | {"revision": revision, "inputs": [asdict(each) for each in script.inputs]}
            connection.execute(sa.insert(scripts), values)
            return _script(connection.execute(_newest(script.name)).one())

    def get(self, name: str, revision: int = 0) -> Script:
        """One revision, or the newest for 0."""
        query = _newest(name) if revision == 0 else sa.select(scripts).where(_is(name, revision))
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            which = f"revision {revision} of script {name}" if revision else f"script {name}"
            raise ScriptNotFound(
                f"no {which}; `twinline scripts list` shows what there is", script=name, revision=str(revision)
            )
        return _script(row)

    def newest(self, *, after: str, limit: int) -> list[Script]:
        """The newest revision of each script by name, without texts."""
        newest = (
            sa.select(scripts.c.name, sa.func.max(scripts.c.revision).label("revision"))
            .where(scripts.c.name > after)
            .group_by(scripts.c.name)
            .order_by(scripts.c.name)
            .limit(limit)
            .subquery()
        )
        same = sa.and_(scripts.c.name == newest.c.name, scripts.c.revision == newest.c.revision)
        query = sa.select(*_LISTED, sa.literal(b"").label("source")).join(newest, same).order_by(scripts.c.name)
        with self._engine.connect() as connection:
            return [_script(row) for row in connection.execute(query)]


def _newest(name: str) -> sa.Select[Any]:
    return sa.select(scripts).where(scripts.c.name == name).order_by(scripts.c.revision.desc()).limit(1)


def _is(name: str, revision: int) -> sa.ColumnElement[bool]:
    return sa.and_(scripts.c.name == name, scripts.c.revision == revision)


def _script(row: sa.Row[*tuple[Any, ...]]) -> Script:
    declarations = tuple(
        Declaration(**each | {"possible_values": tuple(each["possible_values"])}) for each in row.inputs
    )
    return Script(**dict(row._mapping) | {"inputs": declarations, "source": bytes(row.source)})
