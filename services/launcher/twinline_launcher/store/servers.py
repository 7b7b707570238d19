"""Servers on disk: their definitions, together with the machines they have now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from twinline_kit import db
from twinline_launcher.errors import ServerNotFound
from twinline_launcher.models import Instance, Server, Transition, Whole
from twinline_launcher.states import STRANDED

_BATCH = 500


@dataclass(frozen=True)
class Seen:
    """How much of a server somebody knows."""

    server: int = 0
    instance: int = 0
    number: int = 0


@dataclass
class Change:
    """A server as it is, how much that is, and the transitions somebody did not know of."""

    whole: Whole
    seen: Seen
    transitions: list[Transition] = field(default_factory=list)


class ServerStore:
    """Servers by name or id."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def apply(self, wanted: Server) -> Server:
        """Store the definition in place of an earlier one of its name; its machine stays."""
        content = {name: getattr(wanted, name) for name in _DEFINITION}
        with Session(self._engine, expire_on_commit=False) as session:
            new = db.insert_ignore(Server, self._engine).values(wanted.model_dump()).returning(col(Server.id))
            if session.execute(new).scalar() is not None:
                session.commit()
                return wanted
            before = session.exec(select(Server).where(Server.name == wanted.name)).one()
            if any(getattr(before, name) != value for name, value in content.items()):
                changed = {**content, "update_time": wanted.update_time, "revision": col(Server.revision) + 1}
                session.execute(sa.update(Server).where(col(Server.id) == before.id).values(changed))
                session.commit()
                session.refresh(before)
            return before

    def get(self, server: str) -> Whole:
        """The server with this name or id. Raises ServerNotFound."""
        with Session(self._engine) as session:
            either = select(Server).where(sa.or_(col(Server.id) == server, col(Server.name) == server))
            if found := session.exec(either).first():
                return _with_machines(session, [found])[0]
        raise ServerNotFound(f"no server {server}; `twinline servers list` shows what there is", server=server)

    def page(self, *, deployment: str, after: str, limit: int) -> Sequence[Whole]:
        """At most `limit` servers whose names follow `after`, by name; of one deployment, or of all for ""."""
        with Session(self._engine) as session:
            following = select(Server).where(col(Server.name) > after).order_by(col(Server.name)).limit(limit)
            if deployment:
                following = following.where(Server.deployment == deployment)
            return _with_machines(session, session.exec(following).all())

    def transitions(self, server_id: str, *, after: int, limit: int) -> Sequence[Transition]:
        """At most `limit` steps of a server's life that follow number `after`, oldest first."""
        with Session(self._engine) as session:
            return list(session.exec(_history(server_id, after).limit(limit)))

    def changes(self, known: Mapping[str, Seen], *, only: Sequence[str] | None = None) -> list[Change]:
        """The servers (the ids `only`, else all) of which there is more than `known`, by name.

        Of a server that is not known: its present machine's transitions. Of others: every one since.
        """
        with Session(self._engine) as session:
            ids = [server_id for server_id, seen in _standing(session, only).items() if known.get(server_id) != seen]
            changed: list[Change] = []
            for start in range(0, len(ids), _BATCH):
                some = select(Server).where(col(Server.id).in_(ids[start : start + _BATCH])).order_by(col(Server.name))
                for whole in _with_machines(session, session.exec(some).all()):
                    changed.append(_change(session, whole, known.get(whole.server.id)))
            return changed


_DEFINITION = ("deployment", "template", "image", "instance_type", "cloud_key", "security_groups", "inputs", "tags")


def _standing(session: Session, only: Sequence[str] | None) -> dict[str, Seen]:
    joined = (
        sa.select(Server.id, Server.revision, Instance.revision, Instance.number)  # type: ignore[call-overload]
        .join_from(Server, Instance, col(Instance.id) == col(Server.current), isouter=True)
        .order_by(col(Server.name))
    )
    if only is not None:
        joined = joined.where(col(Server.id).in_(only))
    return {row[0]: Seen(row[1], row[2] or 0, row[3] or 0) for row in session.execute(joined)}


def _change(session: Session, whole: Whole, seen: Seen | None) -> Change:
    server, instance = whole.server, whole.instance
    if instance is None:
        return Change(whole, Seen(server.revision))
    if seen is None:
        query = _history(server.id, 0).where(Transition.instance_id == instance.id)
    else:
        query = _history(server.id, seen.number)
    # The row was read before its history, which may be ahead of it: the rest belongs to the next change.
    steps = [each for each in session.exec(query) if each.number <= instance.number]
    return Change(whole, Seen(server.revision, instance.revision, instance.number), steps)


def _history(server_id: str, after: int) -> Any:
    steps = select(Transition).where(Transition.server_id == server_id, col(Transition.number) > after)
    return steps.order_by(col(Transition.number))


def _with_machines(session: Session, servers: Sequence[Server]) -> list[Whole]:
    ids = [server.current for server in servers if server.current]
    found = session.exec(select(Instance).where(col(Instance.id).in_(ids))).all() if ids else ()
    instances = {instance.id: instance for instance in found}
    about = sa.or_(col(Transition.before).in_(STRANDED), col(Transition.after).in_(STRANDED))
    query = select(Transition).where(col(Transition.instance_id).in_(ids), about).order_by(col(Transition.number))
    stranded: dict[str, list[Transition]] = {}
    for each in session.exec(query) if ids else ():
        stranded.setdefault(each.instance_id, []).append(each)
    return [Whole(server, instances.get(server.current), stranded.get(server.current, ())) for server in servers]
