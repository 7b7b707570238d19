"""Presence on disk, as several replicas write it at once, and as a batch that holds a bad row."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from sqlmodel import Session

from tests.peers import postgres
from twinline_agent_gateway.errors import PresenceUnavailable
from twinline_agent_gateway.models import Agent
from twinline_agent_gateway.presence import Presence
from twinline_agent_gateway.store import Connecting, PresenceStore
from twinline_kit import db

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@contextmanager
def migrated(url: str) -> Iterator[sa.Engine]:
    engine = db.open(url)
    try:
        db.migrate(engine, "twinline_agent_gateway")
        yield engine
    finally:
        engine.dispose()


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """A migrated database."""
    with migrated(database_url) as engine:
        yield engine


@pytest.fixture
def strict(postgres_server: postgres.Server) -> Iterator[sa.Engine]:
    """A migrated database that refuses what SQLite takes."""
    with postgres_server.database() as url, migrated(url) as engine:
        yield engine


def prepare(engine: sa.Engine, ids: Iterable[str]) -> None:
    """Make agents, in this order on disk."""
    with Session(engine) as session:
        for agent_id in ids:
            session.add(
                Agent(id=agent_id, server="web", request_id=agent_id, token_hash=agent_id, token_expire_time=NOW)
            )
            session.flush()
        session.commit()


def test_replicas_that_write_the_same_agents_at_once_do_not_wait_for_each_other_for_ever(engine: sa.Engine) -> None:
    ids = [f"agent-{number:03}" for number in range(300)]
    # The rows lie in the other direction than their ids, so that a scan and a list of ids meet in the middle.
    prepare(engine, reversed(ids))
    store = PresenceStore(engine)
    arriving = [Connecting(agent_id, "1", {}) for agent_id in ids]
    store.connect(arriving, replica="a", at=NOW)
    acts: list[Callable[[], object]] = [
        lambda: store.seen("a", at=NOW),
        lambda: store.disconnect([(agent_id, 1) for agent_id in ids], at=NOW),
        lambda: store.connect(arriving, replica="a", at=NOW),
        lambda: store.leave("a"),
    ]
    with ThreadPoolExecutor(len(acts)) as threads:
        for done in [threads.submit(act) for _ in range(25) for act in acts]:
            done.result(timeout=60)
    store.connect(arriving, replica="b", at=NOW)
    assert {place.replica for place in store.locate(ids, at=NOW).values()} == {"b"}


def test_the_end_of_an_older_stream_leaves_the_newer_one_connected(engine: sa.Engine) -> None:
    prepare(engine, ["agent-1"])
    store = PresenceStore(engine)
    for _ in range(2):
        store.connect([Connecting("agent-1", "1", {})], replica="a", at=NOW)
    store.disconnect([("agent-1", 1)], at=NOW)
    assert is_connected(engine, "agent-1")
    store.disconnect([("agent-1", 2)], at=NOW)
    assert not is_connected(engine, "agent-1")


def is_connected(engine: sa.Engine, agent_id: str) -> bool:
    with Session(engine) as session:
        return session.get_one(Agent, agent_id).connected


async def test_a_row_that_the_database_refuses_keeps_no_other_agent_of_its_batch_out(strict: sa.Engine) -> None:
    ids = [f"agent-{number}" for number in range(7)]
    prepare(strict, ids)
    presence = Presence(PresenceStore(strict), replica="a", address="", tick=1.0, limit=1.0, clock=lambda: NOW)
    arriving = [Connecting(agent_id, "\0" if agent_id == "agent-3" else "1", {}) for agent_id in ids]
    admitted = [asyncio.ensure_future(presence.connect(each)) for each in arriving]
    writing = asyncio.ensure_future(presence.write())
    try:
        answers = await asyncio.gather(*admitted, return_exceptions=True)
    finally:
        writing.cancel()
        await presence.leave()
    assert isinstance(answers.pop(3), PresenceUnavailable)
    assert answers == [1] * 6
