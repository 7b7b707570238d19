"""The tables that the migrations make, and what becomes of what was stored in those before."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from tests.unit.launcher.machines import NOON, machine
from twinline_kit import db
from twinline_launcher.models import Table
from twinline_launcher.states import State
from twinline_launcher.steps import load
from twinline_launcher.store.instances import InstanceStore
from twinline_launcher.store.servers import ServerStore

PACKAGE = "twinline_launcher"
STEP = {"script": "hello", "revision": 1, "inputs": [], "attempt": 1, "run": "run-1"}


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """A database with the first tables."""
    engine = db.open(database_url)
    db.migrate(engine, PACKAGE, to="0001")
    yield engine
    engine.dispose()


def test_the_migrations_make_the_tables_that_the_code_expects(engine: sa.Engine) -> None:
    db.migrate(engine, PACKAGE)
    db.migrate(engine, PACKAGE)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []


def test_of_machines_of_the_first_tables_template_and_image_stay_unknown(
    engine: sa.Engine, instances: InstanceStore
) -> None:
    store(engine)
    db.migrate(engine, PACKAGE)
    kept = instances.get("instance-1")
    assert (kept.server_name, kept.template, kept.image) == ("web-1", "", "")


def test_steps_that_had_an_outcome_and_the_state_of_a_task_have_one_state(
    engine: sa.Engine, instances: InstanceStore
) -> None:
    states = [("succeeded", ""), ("running", "pending"), ("running", ""), ("waiting", "")]
    boot = [{**STEP, "outcome": outcome, "task_state": task_state, "reason": ""} for outcome, task_state in states]
    store(engine, boot=[*boot, {**STEP, "outcome": "failed"}])
    db.migrate(engine, PACKAGE)
    steps = load(instances.get("instance-1").boot)
    assert [each.state for each in steps] == ["succeeded", "pending", "running", "waiting", "failed"]
    assert {(each.run, each.attempt, each.given_up, each.reason) for each in steps} == {("run-1", 1, False, "")}


def test_events_of_old_transitions_are_spelt_as_in_the_contract(engine: sa.Engine, servers: ServerStore) -> None:
    store(engine, events=["launch", "run", "finish boot"])
    db.migrate(engine, PACKAGE)
    told = [each.event for each in servers.transitions("server-1", after=0, limit=10)]
    assert told == ["launch", "run", "finish_boot"]


def test_the_request_of_an_old_launch_is_known_still(engine: sa.Engine, instances: InstanceStore) -> None:
    store(engine, launch_request="one")
    db.migrate(engine, PACKAGE)
    made, other = instances.made_by("one"), instances.made_by("two")
    assert made and (made.instance_id, made.event, other) == ("instance-1", "launch", None)


def test_a_launch_that_went_wrong_is_looked_at_until_its_cloud_said_that_nothing_is_left(
    engine: sa.Engine, instances: InstanceStore
) -> None:
    store(engine, state=State.ERROR, due_time=None)
    db.migrate(engine, PACKAGE)
    assert list(instances.claim("other", at=NOON, lease=timedelta(minutes=1), limit=9).instances) == ["instance-1"]


def store(engine: sa.Engine, events: Sequence[str] = ("launch",), **given: Any) -> None:
    """A server and its machine, as the first tables have them."""
    server: dict[str, Any] = {
        "id": "server-1", "name": "web-1", "deployment": "", "template": "web", "image": "v4", "instance_type": "",
        "cloud_key": "", "security_groups": [], "inputs": {}, "tags": [], "current": "instance-1", "revision": 1,
        "create_time": NOON, "update_time": NOON,
    }  # fmt: skip
    moved = {"server_id": "server-1", "instance_id": "instance-1", "cause": "", "time": NOON}
    tables = sa.MetaData()
    tables.reflect(engine)
    with engine.begin() as connection:
        insert(connection, tables.tables["servers"], server)
        insert(connection, tables.tables["instances"], {**machine().model_dump(), **given})
        for number, event in enumerate(events, 1):
            step = {**moved, "number": number, "before": State.INACTIVE, "after": State.PENDING, "event": event}
            insert(connection, tables.tables["transitions"], step)


def insert(connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> None:
    """Store what the table has columns for."""
    connection.execute(sa.insert(table), {name: row[name] for name in row if name in table.columns})
