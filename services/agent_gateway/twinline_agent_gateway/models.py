"""The tables. Tokens are stored hashed."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from twinline_agent_gateway.states import State, state_of
from twinline_kit.db import UtcDateTime


class Table(SQLModel, registry=registry(metadata=sa.MetaData())):
    """What all tables of this service are: apart from other services' tables that run in the same process."""


class Agent(Table, table=True):
    """One agent, from its preparation on. `connected` counts only while its replica lives."""

    __tablename__ = "agents"

    id: str = Field(primary_key=True, max_length=64)
    server: str = Field(max_length=255)
    request_id: str = Field(unique=True, max_length=128)
    token_hash: str = Field(unique=True, max_length=64, repr=False)
    token_expire_time: datetime = Field(sa_type=UtcDateTime)
    key_digest: str | None = Field(default=None, max_length=64)
    """SHA-256 of the public key that spent the token."""
    enroll_time: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked: bool = False
    epoch: int = Field(default=0, sa_type=sa.BigInteger)
    """Grows with each stream."""
    replica: str = Field(default="", max_length=64)
    connected: bool = False
    connect_time: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_seen_time: datetime | None = Field(default=None, sa_type=UtcDateTime)
    version: str = Field(default="", max_length=64)
    facts: dict[str, str] = Field(default_factory=dict, sa_type=sa.JSON)
    change: int = Field(default=0, sa_type=sa.BigInteger, index=True)
    """Which change last connected or revoked it."""


class Replica(Table, table=True):
    """A gateway process that lives until `expire_time`, unless it says so again."""

    __tablename__ = "replicas"

    id: str = Field(primary_key=True, max_length=64)
    address: str = Field(max_length=255)
    expire_time: datetime = Field(sa_type=UtcDateTime)


class Changes(Table, table=True):
    """One row: the number of the latest change. Its lock puts the changes of all replicas in an order without gaps."""

    __tablename__ = "changes"

    id: int = Field(primary_key=True)
    latest: int = Field(sa_type=sa.BigInteger)


@dataclass(frozen=True, slots=True)
class Known:
    """An agent, and whether the replica that it names is alive."""

    agent: Agent
    replica_lives: bool

    @property
    def state(self) -> State:
        """Whether the agent can be spoken to."""
        agent = self.agent
        return state_of(
            revoked=agent.revoked,
            enrolled=agent.enroll_time is not None,
            connected=agent.connected,
            replica_lives=self.replica_lives,
        )
