"""First contact with many hosts at once."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.peers.eventually import eventually
from twinline_executor.host_keys import HostKeys
from twinline_executor.rows import SeenHostKey, Target
from twinline_executor.store.targets import TargetStore
from twinline_kit import db

HOSTS = [Target(f"t{n}", f"web-{n}", 4, host=f"192.0.2.{n}", port=22, username="root") for n in range(40)]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    """A database with many targets."""
    engine = db.open(f"sqlite:///{tmp_path / 'executor.db'}")
    db.migrate(engine, "twinline_executor")
    TargetStore(engine).apply(HOSTS, at=datetime.now(UTC))
    yield engine
    engine.dispose()


async def test_host_keys_that_are_seen_together_are_pinned_together(engine: sa.Engine) -> None:
    keys = HostKeys(TargetStore(engine))
    commits: list[object] = []
    sa.event.listen(engine, "commit", commits.append)
    seen = [SeenHostKey(host.id, host.host, host.port, f"ssh-ed25519 {host.id}") for host in HOSTS]
    assert await asyncio.gather(*map(keys.pin, seen)) == [each.host_key for each in seen]
    assert len(commits) == 2
    assert all(target.host_key_learned for target in TargetStore(engine).by_id([host.id for host in HOSTS]).values())


async def test_whoever_stores_for_all_may_be_dropped_and_the_others_are_pinned(engine: sa.Engine) -> None:
    keys = HostKeys(TargetStore(engine))
    seen = [SeenHostKey(host.id, host.host, host.port, f"ssh-ed25519 {host.id}") for host in HOSTS[:4]]
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE targets SET deployment = 'busy'")
        async with keys._storing:
            first, *others = [asyncio.create_task(keys.pin(each)) for each in seen]
            await eventually(lambda: len(keys._waiting) == len(seen))
        await eventually(lambda: not keys._waiting)
        first.cancel()
        await asyncio.wait([first])
    assert await asyncio.gather(*others) == [each.host_key for each in seen[1:]]


async def test_a_database_that_fails_is_told_to_everyone_and_asked_again(engine: sa.Engine) -> None:
    keys = HostKeys(TargetStore(engine))
    seen = [SeenHostKey(host.id, host.host, host.port, "ssh-ed25519 A") for host in HOSTS[:5]]
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE targets RENAME TO hidden")
    failed = await asyncio.gather(*map(keys.pin, seen), return_exceptions=True)
    assert all(isinstance(each, sa.exc.OperationalError) for each in failed)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE hidden RENAME TO targets")
    assert await asyncio.gather(*map(keys.pin, seen)) == ["ssh-ed25519 A"] * 5
