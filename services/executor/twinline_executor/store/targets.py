"""Targets on disk."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from twinline_executor.errors import TargetDeleted, TargetNameTaken, TargetNotFound
from twinline_executor.models import targets
from twinline_executor.rows import Candidate, SeenHostKey, Target
from twinline_executor.selectors import Predicate

COLUMNS = [targets.c[field.name] for field in fields(Target)]
READ_AT_ONCE = 1000

Row = tuple[Any, ...]


def _pages_of(*columns: sa.ColumnElement[Any]) -> sa.Select[Row]:
    query = sa.select(*columns).where(targets.c.name > sa.bindparam("after"))
    return query.order_by(targets.c.name).limit(READ_AT_ONCE)


_ALL = _pages_of(*COLUMNS)
_CANDIDATES = _pages_of(*(targets.c[name] for name in Candidate._fields))

_LEARN = (
    sa.update(targets)
    .where(
        targets.c.id == sa.bindparam("target_id"), targets.c.host == sa.bindparam("seen_host"),
        targets.c.port == sa.bindparam("seen_port"), targets.c.host_key == "",
    )
    .values(host_key=sa.bindparam("seen_key"), host_key_learned=True)
)  # fmt: skip


class TargetStore:
    """The hosts that scripts can run on."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def apply(self, wanted: Sequence[Target], *, at: datetime) -> list[Target]:
        """Create or change targets in one transaction; answer them as stored, in the same order."""
        try:
            return self._apply(wanted, at)
        except IntegrityError:
            pass  # somebody applied the same ids at once: now they are there
        try:
            return self._apply(wanted, at)
        except IntegrityError:
            raise TargetNameTaken("two targets would have the same name; apply them one after the other") from None

    def _apply(self, wanted: Sequence[Target], at: datetime) -> list[Target]:
        with self._engine.begin() as connection:
            known = self._by_id(connection, [target.id for target in wanted])
            self._refuse_taken_names(connection, wanted)
            stored: list[Target] = []
            new: list[dict[str, Any]] = []
            changed: list[dict[str, Any]] = []
            for target in wanted:
                before = known.get(target.id)
                if before is not None and not before.name:
                    raise TargetDeleted(f"target {target.id} was deleted; use a new id", target=target.id)
                after = replace(target if before is None else _keeping_host_key(before, target), update_time=None)
                if before is not None and replace(before, update_time=None) == after:
                    stored.append(before)
                    continue
                after = replace(after, update_time=at)
                stored.append(after)
                (new if before is None else changed).append(_values(after))
            # Written in the order of their ids: in any other, two calls could wait for each other.
            if changed:
                statement = sa.update(targets).where(targets.c.id == sa.bindparam("key"))
                connection.execute(statement, [values | {"key": values["id"]} for values in _sorted(changed)])
            if new:
                connection.execute(sa.insert(targets), _sorted(new))
            return stored

    def get(self, name: str) -> Target:
        """One target by name or id, as `find` does."""
        found = self.find([name])
        if name not in found:
            raise TargetNotFound(f"no target {name}; `twinline servers list` shows them", target=name)
        return found[name]

    def find(self, names: Sequence[str]) -> dict[str, Target]:
        """Targets by the name or id asked for; those that do not exist are left out.

        An id goes before a name: it means one target for good, and anybody may name another one so.
        """
        found: dict[str, Target] = {}
        with self._engine.connect() as connection:
            for some in _portions(names):
                either = sa.or_(targets.c.name.in_(some), targets.c.id.in_(some))
                query = sa.select(*COLUMNS).where(either, targets.c.name.is_not(None))
                rows = [_target(row) for row in connection.execute(query)]
                found |= {target.name: target for target in rows if target.name in some}
                found |= {target.id: target for target in rows if target.id in some}
        return found

    def by_id(self, ids: Sequence[str]) -> dict[str, Target]:
        """Targets by id, for those who have chosen them before; those that were deleted are left out."""
        found: dict[str, Target] = {}
        with self._engine.connect() as connection:
            for some in _portions(ids):
                found |= self._by_id(connection, some)
        return {target_id: target for target_id, target in found.items() if target.name}

    def page(self, predicate: Predicate, *, after: str, limit: int) -> list[Target]:
        """The targets that a selector picks, by name, from `after` on; at most `limit`."""
        picked: list[Target] = []
        with self._engine.connect() as connection:
            for row in self._by_name(connection, _ALL, after):
                if predicate(target := _target(row)):
                    picked.append(target)
                    if len(picked) == limit:
                        break
        return picked

    def matching(self, predicate: Predicate) -> list[Candidate]:
        """All that a selector picks, by name."""
        with self._engine.connect() as connection:
            candidates = map(Candidate._make, self._by_name(connection, _CANDIDATES, ""))
            return [candidate for candidate in candidates if predicate(candidate)]

    def learn_host_keys(self, seen: Sequence[SeenHostKey]) -> list[str]:
        """Pin keys where none is pinned; answer those that are now, in the same order, "" for targets that moved on."""
        with self._engine.begin() as connection:
            # In the order of their ids, as above.
            connection.execute(_LEARN, [_learned(each) for each in sorted(seen, key=lambda each: each.target_id)])
            now = self._by_id(connection, [each.target_id for each in seen])
        return [_pinned(now.get(each.target_id), each) for each in seen]

    def delete(self, name: str) -> None:
        """Forget a target; its id stays taken for good."""
        target = self.get(name)
        with self._engine.begin() as connection:
            connection.execute(sa.update(targets).where(targets.c.id == target.id).values(name=None, host_key=""))

    def _by_id(self, connection: sa.Connection, ids: Sequence[str]) -> dict[str, Target]:
        query = sa.select(*COLUMNS).where(targets.c.id.in_(ids))
        return {row.id: _target(row) for row in connection.execute(query)}

    def _by_name(self, connection: sa.Connection, query: sa.Select[Row], after: str) -> Iterator[sa.Row[Row]]:
        while True:
            page = connection.execute(query, {"after": after}).all()
            yield from page
            if len(page) < READ_AT_ONCE:
                return
            after = page[-1].name

    def _refuse_taken_names(self, connection: sa.Connection, wanted: Sequence[Target]) -> None:
        by_name = {target.name: target.id for target in wanted}
        query = sa.select(targets.c.name, targets.c.id).where(targets.c.name.in_(list(by_name)))
        for name, target_id in connection.execute(query):
            if by_name[name] != target_id:
                raise TargetNameTaken(
                    f"target {target_id} has the name {name} already; delete it or use another name", target=target_id
                )


def _portions(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + READ_AT_ONCE] for start in range(0, len(names), READ_AT_ONCE))


def _learned(seen: SeenHostKey) -> dict[str, Any]:
    return {
        "target_id": seen.target_id, "seen_host": seen.host, "seen_port": seen.port, "seen_key": seen.host_key,
    }  # fmt: skip


def _pinned(target: Target | None, seen: SeenHostKey) -> str:
    return target.host_key if target and (target.host, target.port) == (seen.host, seen.port) else ""


def _keeping_host_key(before: Target, wanted: Target) -> Target:
    """A learned key stays pinned for as long as the address is the same."""
    if wanted.host_key:
        learned = before.host_key_learned and before.host_key == wanted.host_key
        return replace(wanted, host_key_learned=learned)
    if before.host_key_learned and (before.host, before.port) == (wanted.host, wanted.port):
        return replace(wanted, host_key=before.host_key, host_key_learned=True)
    return wanted


def _sorted(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: str(row["id"]))


def _values(target: Target) -> dict[str, Any]:
    return asdict(target) | {"tags": list(target.tags)}


def _target(row: sa.Row[*tuple[Any, ...]]) -> Target:
    # By position: COLUMNS are the fields in their order, and a run may read ten thousand of them.
    target_id, name, generation, deployment, state, tags, *line = row
    return Target(target_id, name or "", generation, deployment, state, tuple(tags), *line)
