"""Runs that come while their executor stops, and runs that another takes over before they are on their way."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from tests.peers.relay import running_relay
from tests.peers.serving import Served
from tests.peers.sshd import Sshd
from tests.service.executor.conftest import Executor, Run, Start, Task
from tests.service.executor.left_runs import leave_run
from twinline_executor import app, credentials, rows
from twinline_executor.settings import Settings
from twinline_executor.states import State
from twinline_executor.store.owners import OwnerStore
from twinline_executor.store.results import ResultStore
from twinline_executor.store.runs import RunStore
from twinline_kit import db
from twinline_kit.loops import working
from twinline_kit.server import serving


def given(engine: sa.Engine, run_id: str, *, to: str) -> None:
    """Make another replica the run's owner."""
    OwnerStore(engine).beat(to)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE runs SET owner = :to WHERE id = :run"), {"to": to, "run": run_id})


async def beaten(engine: sa.Engine) -> None:
    """Wait until replica `a` has said once more that it lives."""
    owners = OwnerStore(engine)
    before = owners.beats()["a"]
    await eventually(lambda: owners.beats()["a"] > before)


async def taken_over(engine: sa.Engine, run_id: str, caplog: pytest.LogCaptureFixture) -> None:
    """Give the run to replica `b`, and wait until `a` has looked at what it owns."""
    given(engine, run_id, to="b")
    leave_run(str(engine.url), owner="a", number=2)
    await eventually(lambda: "run-2" in followed(caplog))


async def taken_over_unnoticed(engine: sa.Engine, run_id: str, _: pytest.LogCaptureFixture) -> None:
    """Take its owner for dead right after it has beaten, and give the run to replica `b`."""
    await beaten(engine)
    OwnerStore(engine).bury("a")
    given(engine, run_id, to="b")


async def test_a_run_that_comes_after_the_work_has_ended_is_answered_and_taken_over(
    start_executor: Start, authority: Certificates, keys: Served, host: Sshd, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'stopping.db'}"
    settings = Settings(
        **authority.settings("executor", tmp_path / "stopping"), database_url=url, keys_address=keys.bound.mesh
    )
    async with (
        app.build(settings) as built,
        serving(settings.listen(), built.services, identity=settings.identity(), verifier=built.verifier) as bound,
    ):
        stopping = Executor(Served(bound, authority, keys.people), keys)
        await stopping.add_host(host)
        async with working(built.background):
            assert (await stopping.run("true", "web-1")).state == Task.STATE_SUCCEEDED
        started = await stopping.start("touch $HOME/ran", "web-1")
        assert (started.state, started.counts.pending) == (Run.STATE_RUNNING, 1)
    async with start_executor(url) as heir:
        assert (await heir.ended(started.id)).state == Run.STATE_SUCCEEDED
    assert (host.home / "ran").exists()


async def test_a_run_that_another_takes_over_meanwhile_is_not_delivered(
    start_executor: Start, host: Sshd, keys: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    url = f"sqlite:///{tmp_path / 'taken.db'}"
    async with (
        running_relay(int(keys.bound.mesh.rpartition(":")[2])) as relay,
        start_executor(url, keys_address=f"127.0.0.1:{relay.port}", replica="a", beat_limit=60.0) as executor,
    ):
        await executor.add_host(host)
        await executor.set_credential("PASSWORD", b"hunter2")
        assert (await executor.run("true", "web-1", inputs={"P": "cred:PASSWORD"})).state == Task.STATE_SUCCEEDED
        engine = db.open(url)
        relay.stall()
        leave_run(url, owner="a", inputs={"P": "cred:PASSWORD"})
        await eventually(lambda: "following a run that was left" in caplog.text)
        await taken_over(engine, "run-1", caplog)
        relay.flow()
        assert (await executor.run("true", "web-1", inputs={"P": "cred:PASSWORD"})).state == Task.STATE_SUCCEEDED
        assert (await executor.task("run-1")).state == Task.STATE_PENDING
        assert not host.journal("task-1").exists()
        engine.dispose()


async def test_a_run_that_cannot_be_read_keeps_no_other_from_being_followed(
    start_executor: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = migrated(url := f"sqlite:///{tmp_path / 'spoilt.db'}")
    numbers = range(1, 10)
    for number in numbers:
        leave_run(url, owner="a", number=number)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE tasks SET create_time = 'spoilt' WHERE id = 'task-5'"))
    async with start_executor(url, replica="a") as executor:
        for number in numbers:
            if number != 5:
                assert (await executor.ended(f"run-{number}")).state == Run.STATE_FAILED  # there is no target
        await eventually(lambda: "a run could not be taken over" in caplog.text)
    engine.dispose()


async def test_a_run_that_another_takes_over_just_before_it_is_read_is_not_followed(
    start_executor: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    engine = migrated(url := f"sqlite:///{tmp_path / 'read.db'}")

    def given_first(connection: sa.Connection, cursor: object, statement: str, parameters: object, *_: object) -> None:
        if statement.startswith("SELECT") and "WHERE runs.id =" in statement and parameters == ("run-1",):
            given(engine, "run-1", to="b")

    sa.event.listen(sa.Engine, "before_cursor_execute", given_first)
    try:
        async with start_executor(url, replica="a", beat_limit=60.0):
            leave_run(url, owner="a")
            await eventually(lambda: "run-1" in OwnerStore(engine).owned("b"))
            leave_run(url, owner="a", number=2)
            await eventually(lambda: "run-2" in followed(caplog))
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", given_first)
    assert followed(caplog) == ["run-2"]
    engine.dispose()


def followed(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The runs that a replica has begun to follow as they were left to it."""
    records = [record for record in caplog.records if record.message == "following a run that was left"]
    return [getattr(record, "run", "") for record in records]


@pytest.mark.parametrize("takes_over", [taken_over, taken_over_unnoticed])
async def test_a_run_that_was_another_s_meanwhile_is_not_told_of_by_who_had_it_before(
    start_executor: Start,
    host: Sshd,
    keys: Served,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    takes_over: Callable[..., Awaitable[None]],
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(credentials, "backoff", lambda failures: 0.3)
    engine = migrated(f"sqlite:///{tmp_path / 'back.db'}")
    async with start_before_keys_are_gone(start_executor, keys, host, engine) as executor:
        started = await executor.start("true", "web-1", inputs={"P": "cred:PASSWORD"}, reach_timeout={"seconds": 3})
        result = running((await executor.task(started.id)).id, started.id)
        await takes_over(engine, started.id, caplog)
        ResultStore(engine, "b").record([result])
        OwnerStore(engine).bury("b")
        await eventually(lambda: started.id in OwnerStore(engine).owned("a"))
        await eventually(lambda: seconds_since(started.create_time.ToDatetime(UTC)) > 5)  # its time was over long ago
    [task] = RunStore(engine).tasks_by_name(started.id, after=("", ""), limit=1)
    assert (task.state, task.settled) == (State.RUNNING, False)
    engine.dispose()


@asynccontextmanager
async def start_before_keys_are_gone(
    start_executor: Start, keys: Served, host: Sshd, engine: sa.Engine
) -> AsyncIterator[Executor]:
    """The executor `a` with a target and a credential, when it does not reach the keys service any more."""
    url = str(engine.url)
    async with (
        running_relay(int(keys.bound.mesh.rpartition(":")[2])) as relay,
        start_executor(url, keys_address=f"127.0.0.1:{relay.port}", replica="a", beat_limit=60.0) as executor,
    ):
        await executor.add_host(host)
        await executor.set_credential("PASSWORD", b"hunter2")
        await relay.stop()
        yield executor


def migrated(url: str) -> sa.Engine:
    engine = db.open(url)
    db.migrate(engine, "twinline_executor")
    return engine


def running(task_id: str, run_id: str) -> rows.Result:
    """What is written of a task that runs on its host."""
    now = datetime.now(UTC)
    return rows.Result(task_id, run_id, 0, State.RUNNING, False, "", "", None, 0, 0, False, "", now, None)


def seconds_since(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()
