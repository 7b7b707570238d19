"""Two replicas at one row of PostgreSQL at the same moment."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from tests.peers.eventually import eventually
from tests.peers.postgres import Server
from tests.service.launcher.test_store import LEASE, launched
from tests.unit.launcher.machines import minutes
from twinline_kit.errors import Conflict
from twinline_launcher.states import Event, State
from twinline_launcher.store.instances import InstanceStore
from twinline_launcher.store.servers import ServerStore


@pytest.fixture
def database_url(postgres_server: Server) -> Iterator[str]:
    """Races are PostgreSQL's: SQLite has one writer at a time."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def hold_up(engine: sa.Engine, gate: sa.Connection) -> None:
    """Until `gate` commits, every UPDATE of instances waits at the first row it looks at: what it sees is fixed."""
    waits = "CASE WHEN current_query() LIKE 'UPDATE%' THEN pg_advisory_xact_lock_shared(7) IS NOT NULL ELSE true END"
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE instances RENAME TO all_instances"))
        connection.execute(sa.text(f"CREATE VIEW instances AS SELECT * FROM all_instances WHERE {waits}"))
    gate.execute(sa.text("SELECT pg_advisory_xact_lock(7)"))


def is_waiting(engine: sa.Engine) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with engine.connect() as connection:
        return bool(connection.execute(sa.text(waiting)).scalar())


@pytest.mark.parametrize("write", ["save", "apply"])
async def test_a_write_that_waited_for_another_one_is_told_to_read_again(
    engine: sa.Engine, servers: ServerStore, instances: InstanceStore, pool: ThreadPoolExecutor, write: str
) -> None:
    made = launched(servers, instances)
    late: Future[object]
    with engine.connect() as first:
        first.execute(sa.text("UPDATE instances SET cloud_id = 'first', revision = revision + 1"))
        if write == "save":
            late = pool.submit(lambda: instances.save(made.id, revision=made.revision, cloud_id="late"))
        else:
            late = pool.submit(lambda: instances.apply(made.id, Event.RUN, at=minutes(1), cause="", cloud_id="late"))
        await eventually(lambda: is_waiting(engine))
        first.commit()
    with pytest.raises(Conflict):
        late.result(timeout=10)
    now = instances.get(made.id)
    assert (now.cloud_id, now.state, now.revision) == ("first", State.PENDING, made.revision + 1)


async def test_a_machine_that_somebody_takes_right_now_is_neither_waited_for_nor_taken(
    engine: sa.Engine, servers: ServerStore, instances: InstanceStore, pool: ThreadPoolExecutor
) -> None:
    for number in (1, 2):
        launched(servers, instances, number)
    with engine.connect() as first:
        first.execute(sa.text("UPDATE instances SET lease_owner = 'a' WHERE id = 'instance-1'"))
        claim = pool.submit(lambda: instances.claim("b", at=minutes(1), lease=LEASE, limit=1))
        assert claim.result(timeout=10).instances == ["instance-2"]


async def test_a_machine_that_was_taken_while_one_looked_is_not_taken_again(
    engine: sa.Engine, servers: ServerStore, instances: InstanceStore, pool: ThreadPoolExecutor
) -> None:
    """The second one has seen every machine free, and is held up before it gets to any."""
    for number in (1, 2, 3):
        launched(servers, instances, number)
    with engine.connect() as gate:
        hold_up(engine, gate)
        late = pool.submit(lambda: instances.claim("late", at=minutes(1), lease=LEASE, limit=2))
        await eventually(lambda: is_waiting(engine))
        taken = "UPDATE all_instances SET lease_owner = 'first', lease_until = :until WHERE id = 'instance-1'"
        gate.execute(sa.text(taken), {"until": minutes(9)})
        gate.commit()
    assert sorted(late.result(timeout=10).instances) == ["instance-2", "instance-3"]
    assert instances.get("instance-1").lease_owner == "first"
