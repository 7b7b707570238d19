"""The stores, on SQLite and PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from twinline_executor.models import METADATA
from twinline_executor.rows import Result, Run, SeenHostKey, Target, Task
from twinline_executor.states import Line, RunState, State
from twinline_executor.store.output import ROW, OutputStore
from twinline_executor.store.owners import OwnerStore
from twinline_executor.store.results import ResultStore
from twinline_executor.store.runs import RunStore
from twinline_executor.store.targets import TargetStore
from twinline_kit import db

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
ADDED = {"0002": ("changes", "credentials"), "0003": ("targets",), "0005": ("max_output",), "0006": ("asked",)}
"""Columns of runs by the revision that they came with."""


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """A migrated database."""
    engine = db.open(database_url)
    db.migrate(engine, "twinline_executor")
    yield engine
    engine.dispose()


def new_run(engine: sa.Engine, count: int = 3, **fields: object) -> tuple[Run, list[Task]]:
    """A stored run with tasks task-0, task-1 …"""
    values: dict[str, object] = {
        "id": "run-1", "request_id": "r1", "script": "", "revision": 0, "command": "true", "selector": "",
        "inputs": {}, "timeout": None, "reach_timeout": 300.0, "started_by": "me", "create_time": NOW, "owner": "a",
        "max_output": 2**40, "asked": "a" * 64,
    }  # fmt: skip
    run = Run(**values | fields)  # type: ignore[arg-type]
    prefix = "task" if run.id == "run-1" else run.id
    tasks = [Task(f"{prefix}-{n}", run.id, f"t{n}", f"web-{n}", Line.SSH, "", NOW) for n in range(count)]
    return RunStore(engine).create(run, tasks), tasks


def result(task: str, data: bytes = b"", *, at: int = 0, state: State = State.SUCCEEDED, run: str = "run-1") -> Result:
    """A result whose output follows the first `at` bytes."""
    settled = state not in (State.RUNNING, State.UNKNOWN)
    return Result(
        task, run, at, state, settled, "", "", 0 if settled else None, 0, at + len(data), False, "", NOW, NOW, data
    )


def take_back(engine: sa.Engine, revision: str) -> None:
    """Make the database one that an older version left."""
    with engine.begin() as connection:
        for column in (column for later, columns in ADDED.items() if later > revision for column in columns):
            connection.exec_driver_sql(f"ALTER TABLE runs DROP COLUMN {column}")
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")


def test_the_migrations_make_the_tables_that_the_code_expects(engine: sa.Engine) -> None:
    db.migrate(engine, "twinline_executor")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_runs_of_the_first_tables_go_on_where_their_tasks_are(engine: sa.Engine) -> None:
    new_run(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE tasks SET change = 70 WHERE id = 'task-1'")
    take_back(engine, "0001")
    db.migrate(engine, "twinline_executor")
    ResultStore(engine, "a").record([result("task-0")])
    changed = RunStore(engine).tasks_changed("run-1", after=(3, ""), limit=9)
    assert [(task.id, task.change) for task in changed] == [("task-2", 3), ("task-1", 70), ("task-0", 71)]


def test_a_time_limit_that_no_answer_holds_becomes_one_that_an_answer_can(engine: sa.Engine) -> None:
    new_run(engine, timeout=float(2**63))
    new_run(engine, id="run-2", request_id="r2", timeout=86400.0)
    take_back(engine, "0003")
    db.migrate(engine, "twinline_executor")
    assert [RunStore(engine).get(each).timeout for each in ("run-1", "run-2")] == [30 * 86400, 86400]


def test_a_repeated_request_returns_the_first_run(engine: sa.Engine) -> None:
    first, _ = new_run(engine)
    assert RunStore(engine).create(replace(first, id="run-2"), []).id == "run-1"
    assert RunStore(engine).get("run-1") == first


def test_a_batch_is_stored_and_what_another_wrote_is_left_alone(engine: sa.Engine) -> None:
    new_run(engine)
    results, output = ResultStore(engine, "a"), OutputStore(engine)
    assert results.record([result("task-0", b"a"), result("task-1", b"b", state=State.RUNNING)]) == set()
    late = [result("task-0", b"x", at=1), result("task-1", b"y"), result("task-2", b"c")]
    assert results.record(late) == {"task-0", "task-1"}
    assert [output.read(f"task-{n}", 0, 10) for n in range(3)] == [b"a", b"b", b"c"]
    assert results.record([result("task-1", b"bb", at=1)]) == set()
    assert output.read("task-1", 0, 10) == b"bbb"


def test_runs_that_were_taken_over_are_left_to_who_owns_them_now(engine: sa.Engine) -> None:
    new_run(engine)
    new_run(engine, 1, id="run-2", request_id="r2")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE runs SET owner = 'b' WHERE id = 'run-1'")
    slept, now = ResultStore(engine, "a"), ResultStore(engine, "b")
    late = [result("task-0", state=State.UNREACHABLE), result("run-2-0", run="run-2")]
    assert slept.record(late) == {"task-0"}
    assert slept.record([result("task-1", state=State.UNREACHABLE)]) == {"task-1"}
    runs = RunStore(engine)
    tasks = [runs.task(task_id) for task_id in ("task-0", "task-1", "run-2-0")]
    assert [task.state for task in tasks] == [State.PENDING, State.PENDING, State.SUCCEEDED]
    assert now.record([result("task-0", b"x"), result("task-1"), result("task-2")]) == set()
    assert slept.close_run("run-1", at=NOW) is RunState.SUCCEEDED
    assert now.close_run("run-1", at=NOW) is RunState.SUCCEEDED


def test_results_of_who_follows_a_run_no_more_are_left_out_though_its_replica_owns_it(engine: sa.Engine) -> None:
    new_run(engine)
    new_run(engine, 1, id="run-2", request_id="r2")
    late = [result("task-0", state=State.UNREACHABLE), result("run-2-0", run="run-2")]
    assert ResultStore(engine, "a").record(late, follows=lambda run_id: run_id != "run-1") == {"task-0"}
    runs = RunStore(engine)
    assert [runs.task(task_id).state for task_id in ("task-0", "run-2-0")] == [State.PENDING, State.SUCCEEDED]


def test_a_result_that_does_not_follow_what_is_stored_is_left_out(engine: sa.Engine) -> None:
    new_run(engine)
    results, output = ResultStore(engine, "a"), OutputStore(engine)
    results.record([result("task-0", b"begun", state=State.RUNNING)])
    for at in (0, 4, 6):
        assert results.record([result("task-0", b"x", at=at), result("task-1", state=State.RUNNING)]) == {"task-0"}
        assert results.record([result("task-0", at=at)]) == {"task-0"}
    task = RunStore(engine).task("task-0")
    assert (task.state, task.output_size, output.read("task-0", 0, 10)) == (State.RUNNING, 5, b"begun")
    assert results.record([result("task-0", b"!", at=5)]) == set()
    assert output.read("task-0", 0, 10) == b"begun!"


@pytest.mark.parametrize(("offset", "limit"), [(0, 10), (3, 4), (7, 100), (2, 1), (50, 5)])
def test_output_is_read_from_any_offset(engine: sa.Engine, offset: int, limit: int) -> None:
    new_run(engine)
    pieces = [b"ab", b"cde", b"f", b"ghijkl"]
    stored = b""
    for piece in pieces:
        ResultStore(engine, "a").record([result("task-0", piece, at=len(stored), state=State.RUNNING)])
        stored += piece
    assert OutputStore(engine).read("task-0", offset, limit) == stored[offset : offset + limit]


def test_large_output_is_kept_in_rows_of_bounded_size(engine: sa.Engine) -> None:
    new_run(engine)
    data = bytes(range(256)) * 4096
    ResultStore(engine, "a").record([result("task-0", data)])
    with engine.connect() as connection:
        sizes = connection.execute(sa.text("SELECT length(data) FROM output")).scalars().all()
    assert max(sizes) == ROW
    assert OutputStore(engine).read("task-0", ROW - 3, 10) == data[ROW - 3 : ROW + 7]


def test_a_run_ends_with_its_tasks_and_may_turn_better(engine: sa.Engine) -> None:
    new_run(engine, 2)
    results, runs = ResultStore(engine, "a"), RunStore(engine)
    results.record([result("task-0")])
    assert results.close_run("run-1", at=NOW) is RunState.RUNNING
    results.record([result("task-1", state=State.UNKNOWN)])
    assert results.close_run("run-1", at=NOW) is RunState.FAILED
    assert (runs.get("run-1").open, runs.get("run-1").end_time) == (True, NOW)
    results.record([result("task-1")])
    assert results.close_run("run-1", at=NOW) is RunState.SUCCEEDED
    assert not runs.get("run-1").open
    assert runs.counts(["run-1"]) == {"run-1": {State.SUCCEEDED: 2}}


def test_changes_are_read_in_pages(engine: sa.Engine) -> None:
    new_run(engine)
    ResultStore(engine, "a").record([result("task-1"), result("task-0")])
    runs = RunStore(engine)
    first = runs.tasks_changed("run-1", after=(-1, ""), limit=2)
    second = runs.tasks_changed("run-1", after=(first[-1].change, first[-1].id), limit=2)
    assert [task.id for task in [*first, *second]] == ["task-2", "task-0", "task-1"]


def test_who_reads_while_others_write_misses_no_change(engine: sa.Engine) -> None:
    _, tasks = new_run(engine, 40)
    runs, results = RunStore(engine), ResultStore(engine, "a")
    seen: dict[str, State] = {}

    def write(some: list[Task]) -> None:
        for task in some:
            results.record([result(task.id, state=State.RUNNING)])
            results.record([result(task.id)])

    def read(after: tuple[int, str]) -> tuple[int, str]:
        for task in runs.tasks_changed("run-1", after=after, limit=500):
            seen[task.id], after = task.state, (task.change, task.id)
        return after

    last = (-1, "")
    with ThreadPoolExecutor(4) as threads:
        writing = [threads.submit(write, tasks[start::4]) for start in range(4)]
        while not all(each.done() for each in writing):
            last = read(last)
        read(last)
    for each in writing:
        each.result()
    assert seen == dict.fromkeys([task.id for task in tasks], State.SUCCEEDED)


def test_only_the_runs_of_the_dead_are_claimed(engine: sa.Engine) -> None:
    owners = OwnerStore(engine)
    new_run(engine)
    new_run(engine, 1, id="run-2", request_id="r2", owner="b")
    for replica in ("b", "c", "d"):
        assert owners.beat(replica) == 1
    for replica in ("c", "d"):
        owners.claim(replica, 1)
    assert (owners.owned("b"), owners.owned("c"), owners.owned("d")) == ({"run-2": False}, {"run-1": False}, {})
    run, tasks = owners.open_run("run-1")
    assert (run.owner, len(tasks)) == ("c", 3)


def test_a_replica_that_still_beats_is_not_buried(engine: sa.Engine) -> None:
    owners = OwnerStore(engine)
    owners.beat("a")
    seen = owners.beats()["a"]
    assert owners.beat("a", seen) == seen + 1
    owners.bury("a", seen)
    assert owners.beats() == {"a": seen + 1}
    owners.bury("a")
    assert owners.beats() == {}


def test_a_replica_that_was_buried_hears_of_it_though_an_answer_is_lost(engine: sa.Engine) -> None:
    owners = OwnerStore(engine)
    known = owners.beat("a")
    owners.bury("a")
    owners.beat("a", known)  # the answer to this one is lost
    again = owners.beat("a", known)
    assert again < known
    assert owners.beat("a", again) > again


def test_who_was_taken_for_dead_claims_nothing_before_it_has_heard_of_it(engine: sa.Engine) -> None:
    owners = OwnerStore(engine)
    new_run(engine, owner="gone")
    known = owners.beat("a")
    owners.bury("a")
    owners.claim("a", known)
    heard = owners.beat("a", known)
    owners.claim("a", known)
    assert owners.owned("a") == {}
    owners.claim("a", heard)
    assert owners.owned("a") == {"run-1": False}


def test_a_learned_host_key_stays_for_the_address_it_was_learned_at(engine: sa.Engine) -> None:
    targets = TargetStore(engine)
    target = Target("t1", "web-1", 4, host="192.0.2.1", port=22, username="root", cloud_key="k")
    targets.apply([target], at=NOW)
    seen = SeenHostKey("t1", "192.0.2.1", 22, "ssh-ed25519 A")
    other = replace(seen, host_key="ssh-ed25519 B")
    assert targets.learn_host_keys([seen]) == ["ssh-ed25519 A"]
    elsewhere, unknown = replace(other, host="192.0.2.9"), replace(other, target_id="t0")
    assert targets.learn_host_keys([elsewhere, other, unknown]) == ["", "ssh-ed25519 A", ""]
    kept = targets.apply([replace(target, state="operational")], at=NOW)[0]
    assert (kept.host_key, kept.host_key_learned) == ("ssh-ed25519 A", True)
    moved = targets.apply([replace(target, host="192.0.2.2")], at=NOW)[0]
    assert (moved.host_key, moved.host_key_learned) == ("", False)


def test_calls_that_apply_the_same_targets_at_once_do_not_wait_for_each_other_for_ever(engine: sa.Engine) -> None:
    targets = TargetStore(engine)
    some = [Target(f"t{number:03}", f"web-{number}", 5, agent_id=f"agent-{number}") for number in range(200)]

    def apply(state: str, wanted: list[Target]) -> list[str]:
        return [target.id for target in targets.apply([replace(each, state=state) for each in wanted], at=NOW)]

    with ThreadPoolExecutor(2) as threads:
        for state in map(str, range(10)):
            forth = threads.submit(apply, f"{state}-forth", some)
            back = threads.submit(apply, f"{state}-back", some[::-1])
            assert forth.result(timeout=60) == back.result(timeout=60)[::-1]
    assert len({target.state for target in targets.by_id([each.id for each in some]).values()}) == 1


def test_a_cancel_is_seen_by_the_owner_alone(engine: sa.Engine) -> None:
    new_run(engine)
    RunStore(engine).cancel("run-1")
    owners = OwnerStore(engine)
    assert (owners.canceled("a", set()), owners.canceled("a", {"run-1"}), owners.canceled("b", set())) == (
        ["run-1"],
        [],
        [],
    )


def test_a_result_that_cannot_be_stored_does_not_hold_up_the_others(engine: sa.Engine) -> None:
    new_run(engine)
    impossible = replace(result("task-0"), reason="\0")
    assert ResultStore(engine, "a").record([impossible, result("task-1")]) <= {"task-0"}
    assert RunStore(engine).task("task-1").state is State.SUCCEEDED


def test_an_id_goes_before_a_name_and_means_nobody_else_once_its_target_is_deleted(engine: sa.Engine) -> None:
    targets = TargetStore(engine)
    ours, namesake = Target("instance-1", "web-1", 4), Target("instance-2", "instance-1", 4)
    targets.apply([ours, namesake], at=NOW)
    asked = ["instance-1", "web-1", "instance-2"]
    assert [targets.find(asked)[name].id for name in asked] == ["instance-1", "instance-1", "instance-2"]
    assert targets.get("instance-1").id == "instance-1"
    targets.delete("instance-1")
    assert targets.by_id(["instance-1", "instance-2"]).keys() == {"instance-2"}
    assert targets.get("instance-1").id == "instance-2"  # for people a name is one again
