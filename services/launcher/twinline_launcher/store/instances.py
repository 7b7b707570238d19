"""Machines on disk: their states, what is known of them, and who looks after which."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from twinline_kit import telemetry
from twinline_kit.db import UtcDateTime
from twinline_kit.errors import Conflict
from twinline_launcher import states
from twinline_launcher.errors import InstanceNotFound
from twinline_launcher.models import Instance, Server, Transition
from twinline_launcher.states import Event, State

_TRANSITIONS = telemetry.meter().create_counter(
    "twinline.server.transitions",
    unit="{transition}",
    description="Steps in the lives of servers, by event; of those that strand, by reason.",
)


@dataclass(frozen=True)
class Lease:
    """Machines that a reconciler may look after for a while, and when the next one will be due."""

    instances: Sequence[str]
    next_due: datetime | None


class InstanceStore:
    """Machines by id. `launch` and `apply` are the only writers of a state."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def launch(
        self, server: Server, instance: Instance, *, at: datetime, cause: str, request_id: str | None = None
    ) -> Instance:
        """Give `server`, as it was read, this new machine. IllegalTransition when it has one that has not ended.

        Conflict when somebody was faster, be it a call with the same request.
        """
        with Session(self._engine, expire_on_commit=False) as session:
            previous = session.get(Instance, server.current) if server.current else None
            before = State(previous.state) if previous else State.INACTIVE
            instance.state = states.after(before, Event.LAUNCH, server=server.name)
            instance.state_time, instance.cause = at, cause
            instance.number, instance.due_time = (previous.number if previous else 0) + 1, at
            taken = session.execute(
                sa.update(Server)
                .where(col(Server.id) == server.id, col(Server.revision) == server.revision)
                .values(current=instance.id, revision=server.revision + 1, update_time=at)
            )
            if not taken.rowcount:  # type: ignore[attr-defined]  # a statement's result has it
                raise _changed(server.name)
            session.add(instance)
            session.flush()
            step = _transition(instance, instance.number, before, instance.state, Event.LAUNCH, at, cause)
            _commit(session, step, request_id)
            _count(Event.LAUNCH)
            return instance

    def made_by(self, request_id: str | None) -> Transition | None:
        """The step of some server that an earlier call with this request made."""
        if request_id is None:
            return None
        with Session(self._engine) as session:
            return session.exec(select(Transition).where(Transition.request_id == request_id)).one_or_none()

    def get(self, instance_id: str) -> Instance:
        """One machine. Raises InstanceNotFound."""
        with Session(self._engine) as session:
            return _find(session, instance_id)

    def apply(
        self,
        instance_id: str,
        event: Event,
        *,
        at: datetime,
        cause: str,
        revision: int | None = None,
        request_id: str | None = None,
        **facts: Any,
    ) -> Instance:
        """Move one machine along the table and write why, together with new `facts` of it, in one transaction.

        IllegalTransition when the table does not have it; Conflict when somebody was faster, be it a call with the
        same request, or the machine is no longer at the `revision` that the decision was made on.
        """
        with Session(self._engine) as session:
            instance = _find(session, instance_id)
            if revision not in (None, instance.revision):
                raise _changed(instance.server_name)
            before, after = instance.state, states.after(State(instance.state), event, server=instance.server_name)
            moved = {"state": after, "state_time": at, "cause": cause, "due_time": at, "number": instance.number + 1}
            if after not in states.STRANDED:
                moved["stranding"] = None
            _swap(session, instance, {**moved, **facts})
            step = _transition(instance, instance.number + 1, before, after, event, at, cause)
            _commit(session, step, request_id)
            _count(event, facts.get("stranding"))
            return _find(session, instance_id)

    def save(self, instance_id: str, *, revision: int, **facts: Any) -> Instance:
        """Write what became known of a machine; its state stays. Conflict when it is no longer at `revision`."""
        with Session(self._engine) as session:
            instance = _find(session, instance_id)
            if instance.revision != revision:
                raise _changed(instance.server_name)
            _swap(session, instance, facts)
            session.commit()
            return _find(session, instance_id)

    def claim(self, owner: str, *, at: datetime, lease: timedelta, limit: int, without: Collection[str] = ()) -> Lease:
        """Take at most `limit` machines that are due and that nobody holds; none of those `without`."""
        others = col(Instance.id).not_in(without)
        free = sa.or_(col(Instance.lease_until).is_(None), col(Instance.lease_until) < at)
        due = sa.select(col(Instance.id)).where(col(Instance.due_time) <= at, free, others)
        # What was taken after PostgreSQL began to look is left out too: a locking query asks each row again.
        due = due.order_by(col(Instance.due_time)).limit(limit).with_for_update(skip_locked=True)
        taking = sa.update(Instance).where(col(Instance.id).in_(due), free)
        taking = taking.values(lease_owner=owner, lease_until=at + lease)
        taken: Sequence[str] = ()
        soonest = self._next_due(free, others)
        if limit and soonest is not None and soonest <= at:  # a look that writes nothing while nothing is due
            with self._engine.begin() as connection:
                taken = connection.execute(taking.returning(col(Instance.id))).scalars().all()
            soonest = self._next_due(free, others)
        return Lease(taken, soonest)

    def renew(self, owner: str, instances: Collection[str], *, until: datetime) -> Sequence[str]:
        """Hold these of what `owner` holds until then, and no longer; returns those that somebody else holds now."""
        these = col(Instance.id).in_(instances)
        taken = sa.select(col(Instance.id)).where(these, col(Instance.lease_owner).not_in((owner, "")))
        with self._engine.begin() as connection:
            connection.execute(_hold(_mine(owner).where(these), until))
            return connection.execute(taken).scalars().all()

    def at_rest(self, state: State, *, after: str, limit: int) -> Sequence[Instance]:
        """At most `limit` machines in this state whose ids follow `after`, by id, that no look is due at."""
        resting = select(Instance).where(col(Instance.state) == state, col(Instance.due_time).is_(None))
        with Session(self._engine) as session:
            return session.exec(resting.where(col(Instance.id) > after).order_by(col(Instance.id)).limit(limit)).all()

    def wake(self, instances: Collection[str], *, at: datetime) -> None:
        """Let a look at these be due, where none is."""
        resting = sa.select(col(Instance.id)).where(col(Instance.id).in_(instances), col(Instance.due_time).is_(None))
        ordered = resting.order_by(col(Instance.id)).with_for_update()
        with self._engine.begin() as connection:
            connection.execute(sa.update(Instance).where(col(Instance.id).in_(ordered)).values(due_time=at))

    def leave(self, owner: str, *, at: datetime) -> None:
        """Let others have all that `owner` holds from now on."""
        with self._engine.begin() as connection:
            connection.execute(_hold(_mine(owner), at))

    def release(self, instance_id: str, owner: str, *, revision: int, due: datetime | None) -> None:
        """Give a machine back until it is `due`; sooner when it was written by somebody else meanwhile."""
        unchanged = col(Instance.revision) == revision
        later = sa.case((unchanged, sa.literal(due, UtcDateTime())), else_=col(Instance.due_time))
        with self._engine.begin() as connection:
            connection.execute(
                sa.update(Instance)
                .where(col(Instance.id) == instance_id, col(Instance.lease_owner) == owner)
                .values(lease_owner="", lease_until=None, due_time=later)
            )

    def _next_due(self, free: sa.ColumnElement[bool], others: sa.ColumnElement[bool]) -> datetime | None:
        """When the next of the `others` can be taken: when it is due, or when its lease ends."""
        when = sa.case((free, col(Instance.due_time)), else_=col(Instance.lease_until))
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(sa.func.min(when)).where(col(Instance.due_time).is_not(None), others))
            soonest: datetime | None = found.scalar()
            return soonest


def _find(session: Session, instance_id: str) -> Instance:
    if instance := session.get(Instance, instance_id, populate_existing=True):
        return instance
    raise InstanceNotFound(f"no machine {instance_id}", instance=instance_id)


def _mine(owner: str) -> Any:
    return sa.select(col(Instance.id)).where(col(Instance.lease_owner) == owner)


def _hold(mine: Any, until: datetime) -> sa.Update:
    """Hold `mine` until then; the rows are taken in the order of their ids."""
    ordered = mine.order_by(col(Instance.id)).with_for_update()
    return sa.update(Instance).where(col(Instance.id).in_(ordered)).values(lease_until=until)


def _count(event: Event, stranding: Mapping[str, str] | None = None) -> None:
    reason = {"reason": stranding["reason"]} if stranding else {}
    _TRANSITIONS.add(1, {"event": event.value, **reason})


def _swap(session: Session, instance: Instance, values: dict[str, Any]) -> None:
    """Write `values`, unless the row changed since it was read."""
    swapped = session.execute(
        sa.update(Instance)
        .where(col(Instance.id) == instance.id, col(Instance.revision) == instance.revision)
        .values(**values, revision=instance.revision + 1)
        .execution_options(synchronize_session=False)
    )
    if not swapped.rowcount:  # type: ignore[attr-defined]  # a statement's result has it
        raise _changed(instance.server_name)


def _transition(
    instance: Instance, number: int, before: State, after: State, event: Event, at: datetime, cause: str
) -> Transition:
    return Transition(
        server_id=instance.server_id, number=number, instance_id=instance.id,
        before=before, after=after, event=event.value, cause=cause, time=at,
    )  # fmt: skip


def _commit(session: Session, step: Transition, request_id: str | None) -> None:
    """Write a step of `request_id`, and all that goes with it, unless that request made one before."""
    step.request_id = request_id
    session.add(step)
    try:
        session.commit()
    except IntegrityError:
        raise Conflict("a call with the same request_id was faster: try again") from None


def _changed(server: str) -> Conflict:
    return Conflict(f"server {server} changed meanwhile: read it again, then retry", server=server)
