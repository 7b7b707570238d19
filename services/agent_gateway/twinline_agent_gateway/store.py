"""Agents and replicas on disk. Every method is one short transaction."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DataError, IntegrityError
from sqlmodel import Session, col, select

from twinline_agent_gateway.errors import AgentNotFound, AgentRevoked, EnrollmentUsed
from twinline_agent_gateway.models import Agent, Changes, Known, Replica
from twinline_agent_gateway.states import State, state_of

_MOST_NAMED = 1000
_KEEP_DEAD_REPLICAS = timedelta(days=1)


class RowRefused(Exception):
    """The database does not take what one of the rows holds."""


@dataclass(frozen=True, slots=True)
class Connecting:
    """An agent at the door."""

    agent_id: str
    version: str
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Admission:
    """What became of it: its new epoch, or revoked."""

    epoch: int
    revoked: bool


@dataclass(frozen=True, slots=True)
class Location:
    """Where an agent is: its state, and the replica that holds it with its mesh address."""

    state: State
    replica: str
    address: str


@dataclass(frozen=True, slots=True)
class Change:
    """An agent that connected somewhere, or was revoked."""

    number: int
    agent_id: str
    replica: str
    epoch: int
    connected: bool
    revoked: bool


class AgentStore:
    """Agents: prepared, enrolled, revoked."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def prepare(self, agent: Agent) -> Agent:
        """Store `agent`; or give the one that an earlier call with its request_id made, its token good as long as ours.

        Raises EnrollmentUsed when that one enrolled or was revoked meanwhile.
        """
        with Session(self._engine, expire_on_commit=False) as session:
            session.add(agent)
            try:
                session.commit()
            except IntegrityError:
                session.rollback()
            else:
                return agent
            first = select(Agent).where(Agent.request_id == agent.request_id)
            renewed = session.execute(
                sa.update(Agent)
                .where(col(Agent.request_id) == agent.request_id)
                .where(col(Agent.enroll_time).is_(None), col(Agent.revoked).is_(False))
                .values(token_expire_time=agent.token_expire_time)
            )
            session.commit()
            if not _changed(renewed):
                raise EnrollmentUsed(
                    f"the enrolment of request {agent.request_id} was used already: use another request_id",
                    request_id=agent.request_id,
                )
            return session.exec(first).one()

    def spend(self, *, token_hash: str, key_digest: str, at: datetime) -> str | None:
        """Bind the token to a key, or find that it is bound to this one already: the agent's id, else None."""
        fresh = sa.and_(col(Agent.key_digest).is_(None), col(Agent.token_expire_time) > at)
        with Session(self._engine) as session:
            spent = session.execute(
                sa.update(Agent)
                .where(col(Agent.token_hash) == token_hash, col(Agent.revoked).is_(False))
                .where(sa.or_(fresh, col(Agent.key_digest) == key_digest))
                .values(key_digest=key_digest, enroll_time=sa.func.coalesce(col(Agent.enroll_time), at))
                .returning(col(Agent.id))
            ).scalar_one_or_none()
            session.commit()
            return spent

    def of_token(self, token_hash: str) -> Agent | None:
        """The agent that the token was made for."""
        with Session(self._engine) as session:
            return session.exec(select(Agent).where(Agent.token_hash == token_hash)).one_or_none()

    def rebind(self, agent_id: str, key_digest: str) -> None:
        """Let the agent go on with another key, or the same one. Raises AgentRevoked."""
        with Session(self._engine) as session:
            bound = session.execute(
                sa.update(Agent)
                .where(col(Agent.id) == agent_id, col(Agent.revoked).is_(False))
                .values(key_digest=key_digest)
            )
            session.commit()
            if not _changed(bound):
                raise AgentRevoked(f"agent {agent_id} was revoked: launch another server", agent=agent_id)

    def get(self, agent_id: str, *, at: datetime) -> Known:
        """One agent. Raises AgentNotFound."""
        with Session(self._engine) as session:
            for known in _known(session, _with_life(at).where(col(Agent.id) == agent_id)):
                return known
        raise _not_found(agent_id)

    def page(self, *, after: str, limit: int, at: datetime) -> list[Known]:
        """At most `limit` agents whose ids follow `after`, by id."""
        with Session(self._engine) as session:
            following = _with_life(at).where(col(Agent.id) > after).order_by(col(Agent.id))
            return list(_known(session, following.limit(limit)))

    def revoke(self, agent_id: str) -> None:
        """End an agent for good, for all replicas to see. Raises AgentNotFound."""
        with Session(self._engine) as session:
            number = _next_change(session)
            ended = session.execute(
                sa.update(Agent).where(col(Agent.id) == agent_id).values(revoked=True, change=number)
            )
            if not _changed(ended):
                raise _not_found(agent_id)
            session.commit()


class PresenceStore:
    """Which replica holds which agent, written and read for many at once.

    Whoever writes several agents takes their locks in the order of their ids, or two would wait for each other.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def connect(self, arrivals: Sequence[Connecting], *, replica: str, at: datetime) -> dict[str, Admission]:
        """Give each agent its next epoch. Unknown ones are missing from the answer. No agent may be named twice.

        Raises RowRefused, and has written nothing then.
        """
        with Session(self._engine) as session:
            number = _next_change(session)
            rows = [
                {"agent": each.agent_id, "new_version": each.version, "new_facts": dict(each.facts)}
                for each in sorted(arrivals, key=lambda each: each.agent_id)
            ]
            taken = (
                sa.update(Agent.__table__)  # type: ignore[attr-defined]  # a table, whatever the stubs say
                .where(col(Agent.id) == sa.bindparam("agent"), col(Agent.revoked).is_(False))
                .values(
                    epoch=col(Agent.epoch) + 1,
                    replica=replica,
                    connected=True,
                    connect_time=at,
                    last_seen_time=at,
                    change=number,
                    version=sa.bindparam("new_version"),
                    facts=sa.bindparam("new_facts"),
                )
            )
            try:
                session.connection().execute(taken, rows)
            except DataError as error:
                raise RowRefused(str(error.orig)) from error
            admitted = {
                agent_id: Admission(epoch, revoked)
                for ids in _slices([each.agent_id for each in arrivals])
                for agent_id, epoch, revoked in session.execute(
                    sa.select(col(Agent.id), col(Agent.epoch), col(Agent.revoked)).where(col(Agent.id).in_(ids))
                )
            }
            session.commit()
            return admitted

    def disconnect(self, departures: Sequence[tuple[str, int]], *, at: datetime) -> None:
        """Note that these (agent id, epoch) streams ended; a newer stream is left as it is."""
        with Session(self._engine) as session:
            left = (
                sa.update(Agent.__table__)  # type: ignore[attr-defined]
                .where(col(Agent.id) == sa.bindparam("agent"), col(Agent.epoch) == sa.bindparam("its_epoch"))
                .values(connected=False, last_seen_time=at)
            )
            session.connection().execute(
                left, [{"agent": agent_id, "its_epoch": epoch} for agent_id, epoch in sorted(departures)]
            )
            session.commit()

    def seen(self, replica: str, *, at: datetime) -> None:
        """Note that all agents whose streams this replica holds were alive just now."""
        with Session(self._engine) as session:
            session.execute(_update_held_by(replica).values(last_seen_time=at))
            session.commit()

    def locate(self, agent_ids: Sequence[str], *, at: datetime) -> dict[str, Location]:
        """Where these agents are. Unknown ones are missing from the answer."""
        found: dict[str, Location] = {}
        with Session(self._engine) as session:
            for ids in _slices(agent_ids):
                chosen = _joined(
                    sa.select(
                        col(Agent.id), col(Agent.revoked), col(Agent.enroll_time), col(Agent.connected),
                        col(Agent.replica), col(Replica.address),
                    ),
                    at,
                ).where(col(Agent.id).in_(ids))  # fmt: skip
                for agent_id, revoked, enrolled, connected, replica, address in session.execute(chosen):
                    state = state_of(
                        revoked=revoked,
                        enrolled=enrolled is not None,
                        connected=connected,
                        replica_lives=address is not None,
                    )
                    found[agent_id] = Location(state, replica, address or "")
        return found

    def latest_change(self) -> int:
        """The number of the latest change."""
        with Session(self._engine) as session:
            return session.exec(select(Changes.latest)).one()

    def changes_after(self, number: int) -> list[Change]:
        """What changed since, oldest first; of an agent only its latest change."""
        with Session(self._engine) as session:
            rows = session.execute(
                sa.select(
                    col(Agent.change), col(Agent.id), col(Agent.replica),
                    col(Agent.epoch), col(Agent.connected), col(Agent.revoked),
                )
                .where(col(Agent.change) > number)
                .order_by(col(Agent.change))
            )  # fmt: skip
            return [Change(*row) for row in rows]

    def beat(self, replica: str, address: str, *, at: datetime, until: datetime) -> None:
        """Say that the replica lives until then; forget those that are long gone."""
        with Session(self._engine) as session:
            session.execute(sa.delete(Replica).where(col(Replica.expire_time) < at - _KEEP_DEAD_REPLICAS))
            said = session.execute(
                sa.update(Replica).where(col(Replica.id) == replica).values(address=address, expire_time=until)
            )
            if not _changed(said):
                session.add(Replica(id=replica, address=address, expire_time=until))
            session.commit()

    def leave(self, replica: str) -> None:
        """Note that the replica holds no streams and is gone."""
        with Session(self._engine) as session:
            session.execute(_update_held_by(replica).values(connected=False))
            session.execute(sa.delete(Replica).where(col(Replica.id) == replica))
            session.commit()


def _update_held_by(replica: str) -> Any:
    held = sa.select(col(Agent.id)).where(col(Agent.replica) == replica, col(Agent.connected).is_(True))
    return sa.update(Agent).where(col(Agent.id).in_(held.order_by(col(Agent.id)).with_for_update()))


def _joined(query: Any, at: datetime) -> Any:
    """`query` beside the replica of each agent, where that one lives."""
    lives = sa.and_(col(Replica.id) == col(Agent.replica), col(Replica.expire_time) > at)
    return query.join_from(Agent, Replica, lives, isouter=True)


def _with_life(at: datetime) -> Any:
    return _joined(sa.select(Agent, col(Replica.id)), at)


def _known(session: Session, query: Any) -> Iterator[Known]:
    for agent, replica in session.execute(query):
        session.expunge(agent)
        yield Known(agent, replica is not None)


def _next_change(session: Session) -> int:
    """The number of a new change; nobody else gets one until this transaction ends."""
    counted = sa.update(Changes).values(latest=col(Changes.latest) + 1).returning(col(Changes.latest))
    number: int = session.execute(counted).scalar_one()
    return number


def _changed(result: Any) -> bool:
    return bool(result.rowcount)


def _slices(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _MOST_NAMED):
        yield ids[start : start + _MOST_NAMED]


def _not_found(agent_id: str) -> AgentNotFound:
    return AgentNotFound(f"no agent {agent_id}: list the agents", agent=agent_id)
