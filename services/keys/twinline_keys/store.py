"""Keys, credentials and people on disk. Every method is one short transaction."""

from collections.abc import Generator, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from twinline_keys.errors import CredentialNotFound, KeyExists, KeyNotFound, TokenUnknown
from twinline_keys.models import Canary, CloudKey, Credential, Person, Role
from twinline_kit import db

CANARY = "canary"
BATCH = 500

_BY_TOKEN = select(Person).where(Person.token_hash == sa.bindparam("token_hash"))  # asked with each call of a person


class CloudKeyStore:
    """Cloud keys, with their sealed private halves."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def insert(self, key: CloudKey) -> CloudKey:
        """Store `key`, or return what an earlier call with its request_id made. KeyExists when the name is taken."""
        with Session(self._engine, expire_on_commit=False) as session:
            session.add(key)
            try:
                session.commit()
            except IntegrityError:
                session.rollback()
                if first := self._first_of(session, key.request_id):
                    return first
                raise KeyExists(
                    f"a cloud key named {key.name} exists: choose another name or delete that key", key=key.name
                ) from None
            return key

    def made_by(self, request_id: str | None) -> CloudKey | None:
        """The key that an earlier call with this request_id made."""
        with Session(self._engine) as session:
            return self._first_of(session, request_id)

    def get(self, key: str) -> CloudKey:
        """The key with this id or name. Raises KeyNotFound."""
        with Session(self._engine) as session:
            return self._find(session, key)

    def page(self, *, after: str, limit: int) -> Sequence[CloudKey]:
        """At most `limit` keys whose names follow `after`, by name."""
        with Session(self._engine) as session:
            following = select(CloudKey).where(col(CloudKey.name) > after).order_by(col(CloudKey.name))
            return session.exec(following.limit(limit)).all()

    def add_material(self, key_id: str, *, public_key: str, fingerprint: str, sealed: bytes, at: datetime) -> CloudKey:
        """Give a key its private half, unless it has one already. Raises KeyNotFound when it was deleted meanwhile."""
        with Session(self._engine) as session:
            session.exec(
                sa.update(CloudKey)
                .where(col(CloudKey.id) == key_id, col(CloudKey.sealed).is_(None))
                .values(public_key=public_key, fingerprint=fingerprint, sealed=sealed, material_time=at)
            )
            session.commit()
            return self._find(session, key_id)

    def delete(self, key: str) -> CloudKey:
        """Delete the key with this id or name and return what it was. Raises KeyNotFound."""
        with Session(self._engine, expire_on_commit=False) as session:
            found = self._find(session, key)
            session.delete(found)
            session.commit()
            return found

    @staticmethod
    def _first_of(session: Session, request_id: str | None) -> CloudKey | None:
        if request_id is None:
            return None
        return session.exec(select(CloudKey).where(CloudKey.request_id == request_id)).one_or_none()

    @staticmethod
    def _find(session: Session, key: str) -> CloudKey:
        either = select(CloudKey).where(sa.or_(col(CloudKey.id) == key, col(CloudKey.name) == key))
        if found := session.exec(either).first():
            return found
        raise KeyNotFound(f"no cloud key {key}; `twinline keys list` shows what there is", key=key)


class CredentialStore:
    """Credentials, sealed."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def put(self, credential: Credential) -> Credential:
        """Store `credential`, in place of an earlier one of its name."""
        values = {"sealed": credential.sealed, "update_time": credential.update_time}
        with self._engine.begin() as connection:
            # Both, always: how many rows an insert made is not known on PostgreSQL.
            connection.execute(db.insert_ignore(Credential, self._engine).values(name=credential.name, **values))
            connection.execute(sa.update(Credential).where(col(Credential.name) == credential.name).values(values))
        return credential

    def page(self, *, after: str, limit: int) -> Sequence[Credential]:
        """At most `limit` credentials whose names follow `after`, by name."""
        with Session(self._engine) as session:
            following = select(Credential).where(col(Credential.name) > after).order_by(col(Credential.name))
            return session.exec(following.limit(limit)).all()

    def named(self, names: Sequence[str]) -> Sequence[Credential]:
        """All of `names`. Raises CredentialNotFound when any is unknown."""
        with Session(self._engine) as session:
            rows = session.exec(select(Credential).where(col(Credential.name).in_(names))).all()
        if missing := sorted(set(names) - {row.name for row in rows}):
            raise CredentialNotFound(
                f"no credential {', '.join(missing)}: set it before the run", credentials=" ".join(missing)
            )
        return rows

    def delete(self, name: str) -> None:
        """Delete one. Raises CredentialNotFound."""
        with self._engine.begin() as connection:
            if not connection.execute(sa.delete(Credential).where(col(Credential.name) == name)).rowcount:
                raise CredentialNotFound(
                    f"no credential {name}; `twinline credentials list` shows what there is", credentials=name
                )


class PeopleStore:
    """People, by the hash of their token."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def ensure(self, name: str, role: Role, token_hash: str) -> None:
        """Make the person, or give the one of that name this role and token."""
        values = {"role": role, "token_hash": token_hash}
        with self._engine.begin() as connection:
            # Both, always: how many rows an insert made is not known on PostgreSQL.
            connection.execute(db.insert_ignore(Person, self._engine).values(name=name, **values))
            connection.execute(sa.update(Person).where(col(Person.name) == name).values(values))

    def by_token(self, token_hash: str) -> Person:
        """The person with this token. Raises TokenUnknown."""
        with Session(self._engine) as session:
            if person := session.exec(_BY_TOKEN, params={"token_hash": token_hash}).one_or_none():
                return person
        raise TokenUnknown("nobody has this token: take the one that the administrator gave you")


class SealStore:
    """What the start-up check looks at."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def canary(self) -> bytes | None:
        """The sealed constant, once there is one."""
        with Session(self._engine) as session:
            row = session.get(Canary, CANARY)
            return row.sealed if row else None

    def plant(self, sealed: bytes) -> None:
        """Store the sealed constant, unless there is one."""
        with self._engine.begin() as connection:
            connection.execute(db.insert_ignore(Canary, self._engine).values(name=CANARY, sealed=sealed))

    def records(self) -> Generator[tuple[str, str, bytes], None, None]:
        """Every sealed record: what it is, its name, its bytes."""
        keys = sa.select(col(CloudKey.name), col(CloudKey.sealed)).where(col(CloudKey.sealed).is_not(None))
        credentials = sa.select(col(Credential.name), col(Credential.sealed))
        with self._engine.connect() as connection:
            batches = connection.execution_options(yield_per=BATCH)
            with batches.execute(keys) as rows:
                for name, sealed in rows:
                    yield "cloud key", name, sealed or b""
            with batches.execute(credentials) as rows:
                for name, sealed in rows:
                    yield "credential", name, sealed
