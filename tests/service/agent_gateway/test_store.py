"""Presence on disk, as several replicas write it at once."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from sqlmodel import Session

from twinline_agent_gateway.models import Agent
from twinline_agent_gateway.store import Connecting, PresenceStore
from twinline_kit import db

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """A migrated database."""
    engine = db.open(database_url)
    db.migrate(engine, "twinline_agent_gateway")
    yield engine
    engine.dispose()


def test_replicas_that_write_the_same_agents_at_once_do_not_wait_for_each_other_for_ever(engine: sa.Engine) -> None:
    ids = [f"agent-{number:03}" for number in range(300)]
    with Session(engine) as session:
        # The rows lie in the other direction than their ids, so that a scan and a list of ids meet in the middle.
        for agent_id in reversed(ids):
            session.add(
                Agent(id=agent_id, server="web", request_id=agent_id, token_hash=agent_id, token_expire_time=NOW)
            )
            session.flush()
        session.commit()
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
