"""The tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from twinline_kit.db import UtcDateTime
from twinline_launcher.states import State


class Generation(IntEnum):
    """Which line reaches a machine; the numbers are the proto's."""

    UNSPECIFIED = 0
    V4 = 4
    V5 = 5


class Table(SQLModel, registry=registry(metadata=sa.MetaData())):
    """What all tables of this service are: apart from other services' tables that run in the same process."""


class Image(Table, table=True):
    """A machine image of one cloud."""

    __tablename__ = "images"

    name: str = Field(primary_key=True, max_length=255)
    cloud: str = Field(max_length=64)
    cloud_image: str = Field(max_length=255)
    generation: int
    update_time: datetime = Field(sa_type=UtcDateTime)


class SecurityGroup(Table, table=True):
    """Which inbound ports are open."""

    __tablename__ = "security_groups"

    name: str = Field(primary_key=True, max_length=255)
    cloud: str = Field(max_length=64)
    open_ports: list[int] = Field(sa_type=sa.JSON)
    update_time: datetime = Field(sa_type=UtcDateTime)


class Template(Table, table=True):
    """Three lists of `{script, revision}`, and inputs in value syntax."""

    __tablename__ = "templates"

    name: str = Field(primary_key=True, max_length=255)
    description: str = Field(sa_type=sa.Text)
    boot: list[dict[str, Any]] = Field(sa_type=sa.JSON)
    operational: list[dict[str, Any]] = Field(sa_type=sa.JSON)
    decommission: list[dict[str, Any]] = Field(sa_type=sa.JSON)
    inputs: dict[str, str] = Field(sa_type=sa.JSON)
    update_time: datetime = Field(sa_type=UtcDateTime)


class Deployment(Table, table=True):
    """Servers that belong together."""

    __tablename__ = "deployments"

    name: str = Field(primary_key=True, max_length=255)
    description: str = Field(sa_type=sa.Text)
    inputs: dict[str, str] = Field(sa_type=sa.JSON)
    update_time: datetime = Field(sa_type=UtcDateTime)


class Server(Table, table=True):
    """A definition, and which machine it has now. `revision` grows with each change and guards the next one."""

    __tablename__ = "servers"

    id: str = Field(primary_key=True, max_length=64)
    name: str = Field(unique=True, max_length=128)
    deployment: str = Field(max_length=255)
    template: str = Field(max_length=255)
    image: str = Field(max_length=255)
    instance_type: str = Field(max_length=64)
    cloud_key: str = Field(max_length=255)
    security_groups: list[str] = Field(sa_type=sa.JSON)
    inputs: dict[str, str] = Field(sa_type=sa.JSON)
    tags: list[str] = Field(sa_type=sa.JSON)
    current: str = Field(default="", max_length=64)
    revision: int = 1
    create_time: datetime = Field(sa_type=UtcDateTime)
    update_time: datetime = Field(sa_type=UtcDateTime)


class Instance(Table, table=True):
    """One machine: what was frozen at its launch, where it stands, and what is known of it.

    `revision` grows with each write and guards the next one. `number` is that of its last transition, and goes on where
    the server's machine before it ended.
    """

    __tablename__ = "instances"
    __table_args__ = (sa.Index("ix_instances_at_rest", "state", "due_time", "id"),)

    id: str = Field(primary_key=True, max_length=64)
    server_id: str = Field(foreign_key="servers.id", max_length=64)
    server_name: str = Field(max_length=128)
    state: State = Field(sa_type=sa.String(32))
    state_time: datetime = Field(sa_type=UtcDateTime)
    cause: str = Field(sa_type=sa.Text)
    revision: int = 1
    number: int = 1

    # Frozen at launch.
    deployment: str = Field(max_length=255)
    tags: list[str] = Field(sa_type=sa.JSON)
    template: str = Field(default="", max_length=255)
    image: str = Field(default="", max_length=255)
    """This and the template are empty where the launch was before they were kept."""
    cloud: str = Field(max_length=64)
    cloud_image: str = Field(max_length=255)
    generation: int
    generation_assumed: bool
    instance_type: str = Field(max_length=64)
    hourly_micros: int = Field(sa_type=sa.BigInteger)
    currency: str = Field(max_length=8)
    cloud_key: str = Field(max_length=64)
    cloud_key_name: str = Field(max_length=255)
    public_key: str = Field(sa_type=sa.Text)
    security_groups: list[str] = Field(sa_type=sa.JSON)
    inputs: list[dict[str, str]] = Field(sa_type=sa.JSON)
    traceparent: str = Field(default="", max_length=64)
    launch_time: datetime = Field(sa_type=UtcDateTime)

    # Its lists, and why it stands still.
    boot: list[dict[str, Any]] = Field(sa_type=sa.JSON)
    decommission: list[dict[str, Any]] = Field(sa_type=sa.JSON)
    stranding: dict[str, str] | None = Field(default=None, sa_type=sa.JSON(none_as_null=True))

    # As the cloud says.
    cloud_id: str = Field(default="", max_length=255)
    address: str = Field(default="", max_length=255)
    username: str = Field(default="", max_length=64)
    host_key: str = Field(default="", sa_type=sa.Text)
    agent_id: str = Field(default="", max_length=128)
    run_time: datetime | None = Field(default=None, sa_type=UtcDateTime)
    terminate_time: datetime | None = Field(default=None, sa_type=UtcDateTime)

    # The reconciler's own.
    target: str = Field(default="", max_length=64)
    """Digest of the target that the executor has; empty: none."""
    due_time: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)
    """When to look at it next; None: not before something changes."""
    lease_owner: str = Field(default="", max_length=64)
    lease_until: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Transition(Table, table=True):
    """One step of a server's life, numbered without gaps over all its machines."""

    __tablename__ = "transitions"

    server_id: str = Field(primary_key=True, max_length=64)
    number: int = Field(primary_key=True)
    instance_id: str = Field(max_length=64, index=True)
    before: State = Field(sa_type=sa.String(32))
    after: State = Field(sa_type=sa.String(32))
    event: str = Field(max_length=32)
    cause: str = Field(sa_type=sa.Text)
    time: datetime = Field(sa_type=UtcDateTime)
    request_id: str | None = Field(default=None, unique=True, index=True, max_length=128)
    """Of the call that made it, when that had one: no other call with it does anything."""


@dataclass(frozen=True)
class Whole:
    """A server, its present machine, and the transitions into and out of being stranded, which its cost needs."""

    server: Server
    instance: Instance | None = None
    stranded: Sequence[Transition] = ()
