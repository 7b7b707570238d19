"""The tables. `sealed` columns hold what `sealing` makes, never anything in clear."""

from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from twinline_kit.db import UtcDateTime


class Role(StrEnum):
    """What a person may do."""

    OBSERVER = "observer"
    ADMIN = "admin"


class Table(SQLModel, registry=registry(metadata=sa.MetaData())):
    """What all tables of this service are: apart from other services' tables that run in the same process."""


class CloudKey(Table, table=True):
    """An SSH key pair known to a cloud; `sealed` is its private half, where that is here."""

    __tablename__ = "cloud_keys"

    id: str = Field(primary_key=True, max_length=64)
    name: str = Field(unique=True, max_length=255)
    public_key: str = Field(sa_type=sa.Text)
    fingerprint: str = Field(max_length=128)
    sealed: bytes | None = Field(default=None, repr=False)
    create_time: datetime = Field(sa_type=UtcDateTime)
    material_time: datetime | None = Field(default=None, sa_type=UtcDateTime)
    request_id: str | None = Field(default=None, unique=True, max_length=128)


class Credential(Table, table=True):
    """A named secret value."""

    __tablename__ = "credentials"

    name: str = Field(primary_key=True, max_length=128)
    sealed: bytes = Field(repr=False)
    update_time: datetime = Field(sa_type=UtcDateTime)


class Person(Table, table=True):
    """Somebody with a token, of which only the SHA-256 is kept."""

    __tablename__ = "people"

    name: str = Field(primary_key=True, max_length=128)
    role: Role = Field(sa_type=sa.String(32))
    token_hash: str = Field(unique=True, max_length=64, repr=False)


class Canary(Table, table=True):
    """A sealed constant: it opens with the right key-encryption key and no other."""

    __tablename__ = "canaries"

    name: str = Field(primary_key=True, max_length=32)
    sealed: bytes
