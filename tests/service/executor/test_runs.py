"""Runs: what is refused before anything happens, and what is kept."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.peers.sshd import Sshd
from tests.service.executor.conftest import Executor, Run, Start, Task
from tests.service.executor.left_runs import leave_run
from twinline.executor.v1 import runs_pb2, scripts_pb2, targets_pb2
from twinline_executor.errors import (
    InputMalformed,
    InputMissing,
    InputUnknown,
    RunNotFound,
    ScriptNotFound,
    SelectionEmpty,
    SelectorMalformed,
    TargetNotFound,
)
from twinline_kit import pages
from twinline_kit.errors import Error, InvalidArgument, NotFound
from twinline_kit.pages import BadPageToken

SCRIPT = b"""#!/bin/sh
# ---
# RightScript Name: greet
# Inputs:
#   WHOM:
#     Required: true
#   PORT:
#     Default: text:8080
#     Possible Values: ["text:8080", "text:8443"]
# ...
printf '%s %s' "$WHOM" "$PORT"
"""
SECRET = b"hunter2-hunter2-hunter2"


def nowhere(name: str) -> targets_pb2.Target:
    """A target that nobody reaches."""
    line = targets_pb2.SshLine(host="192.0.2.1", cloud_key="launch-key")
    return targets_pb2.Target(id=f"t-{name}", name=name, ssh=line)


async def test_twenty_equal_requests_at_once_make_one_run(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    request_id = str(uuid.uuid4())
    command = "echo run >> $HOME/runs"
    answers = await asyncio.gather(*(executor.start(command, "web-1", request_id=request_id) for _ in range(20)))
    assert len({run.id for run in answers}) == 1
    await executor.ended(answers[0].id)
    assert (host.home / "runs").read_text() == "run\n"


async def test_a_request_that_is_repeated_answers_its_run_whatever_it_would_pick_by_now(executor: Executor) -> None:
    await executor.targets.ApplyTargets(targets_pb2.ApplyTargetsRequest(targets=[nowhere("web-1")]))
    await executor.scripts.PushScript(scripts_pb2.PushScriptRequest(source=SCRIPT))
    request = runs_pb2.StartRunRequest(
        request_id="r1", script="greet", selector="name:web-*", inputs={"WHOM": "text:x"}
    )
    request.reach_timeout.seconds = 60
    first = await executor.runs.StartRun(request)
    await executor.targets.ApplyTargets(targets_pb2.ApplyTargetsRequest(targets=[nowhere("web-2")]))
    await executor.scripts.PushScript(scripts_pb2.PushScriptRequest(source=SCRIPT.replace(b"8443", b"8444")))
    request.reach_timeout.seconds = 59  # who asks again has less time left
    again = await executor.runs.StartRun(request)
    assert (again.id, again.revision, again.counts.total) == (first.id, 1, 1)
    await executor.targets.DeleteTarget(targets_pb2.DeleteTargetRequest(target="web-1"))
    await executor.targets.DeleteTarget(targets_pb2.DeleteTargetRequest(target="web-2"))
    assert (await executor.runs.StartRun(request)).id == first.id


@pytest.mark.parametrize(
    "other",
    [
        {"command": "false"},
        {"command": "greet", "targets": ["web-1", "web-2"]},
        {"script": "greet", "revision": 1},
        {"script": "greet", "inputs": {"WHOM": "text:y"}},
        {"script": "greet", "targets": ["web-2"]},
        {"script": "greet", "targets": [], "selector": "name:web-1"},
        {},
    ],
)
async def test_a_request_id_is_not_used_for_something_else(executor: Executor, other: dict[str, Any]) -> None:
    wanted = [nowhere("web-1"), nowhere("web-2")]
    await executor.targets.ApplyTargets(targets_pb2.ApplyTargetsRequest(targets=wanted))
    await executor.scripts.PushScript(scripts_pb2.PushScriptRequest(source=SCRIPT))
    common = {"request_id": "r1", "targets": ["web-1"], "inputs": {"WHOM": "text:x"}}
    first = await executor.runs.StartRun(runs_pb2.StartRunRequest(**common, script="greet"))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=f"request_id was used before, for {first.id}, .*: make a new one"):
        await executor.runs.StartRun(runs_pb2.StartRunRequest(**common | other))


async def test_a_run_that_does_not_know_what_was_asked_answers_its_request_id(
    executor: Executor, tmp_path: Path
) -> None:
    leave_run(f"sqlite:///{tmp_path / 'executor.db'}", owner="a replica that is no more")
    assert (await executor.start("anything", "web-1", request_id="r1")).id == "run-1"


async def test_of_two_requests_at_once_with_one_id_the_other_is_refused(executor: Executor) -> None:
    await executor.targets.ApplyTargets(targets_pb2.ApplyTargetsRequest(targets=[nowhere("web-1")]))
    starts = [executor.start(command, "web-1", request_id="r1") for command in ("true", "false")]
    answers = await asyncio.gather(*starts, return_exceptions=True)
    assert {type(answer) for answer in answers} == {Run, InvalidArgument}


async def test_a_selector_picks_the_targets(executor: Executor, host: Sshd) -> None:
    for name in ("web-1", "web-2", "db-1"):
        await executor.add_host(host, name)
    run = await executor.start("true", selector="name:web-* and tag:role=web")
    assert (run.counts.total, run.selector) == (2, "name:web-* and tag:role=web")
    assert [task.target_name for task in await executor.tasks(run.id)] == ["web-1", "web-2"]
    assert (await executor.ended(run.id)).counts.succeeded == 2


@pytest.mark.parametrize(
    ("selector", "error"),
    [
        ("", SelectionEmpty),
        ("name:nothing", SelectionEmpty),
        ("name:(", SelectorMalformed),
        ("frob:x", SelectorMalformed),
    ],
)
async def test_a_run_on_nothing_is_refused(executor: Executor, selector: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await executor.start("true", selector=selector)


async def test_a_selection_of_what_nobody_has_says_what_there_is(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    with pytest.raises(SelectionEmpty, match="no target has the tag role=wbe: the only tag is role=web$"):
        await executor.start("true", selector="tag:role=wbe")


async def test_all_unknown_targets_are_named(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    with pytest.raises(TargetNotFound, match="web-8, web-9"):
        await executor.start("true", "web-8", "web-1", "web-9")


async def test_a_target_is_found_by_id_and_counts_once(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    run = await executor.start("true", "web-1", "target-web-1")
    assert (run.counts.total, run.selector, list(run.targets)) == (1, "", ["web-1"])


async def test_a_run_names_all_targets_that_it_was_given_and_takes_no_more_than_a_thousand(executor: Executor) -> None:
    names = [f"web-{number:03}" for number in range(30)]
    targets = [nowhere(name) for name in names]
    await executor.targets.ApplyTargets(targets_pb2.ApplyTargetsRequest(targets=targets))
    assert (await executor.start("true", *names, validate_only=True)).targets == names
    with pytest.raises(InvalidArgument, match="1001 targets are more than 1000 given one by one; give a selector"):
        await executor.start("true", *(f"web-{number}" for number in range(1001)))


async def test_a_run_tells_its_time_limit(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    run = await executor.start("true", "web-1", timeout={"seconds": 7, "nanos": 500_000_000})
    assert (run.timeout.seconds, run.timeout.nanos) == (7, 500_000_000)
    assert not (await executor.start("true", "web-1")).HasField("timeout")


@pytest.mark.parametrize("field", ["timeout", "reach_timeout"])
@pytest.mark.parametrize(
    "length",
    [
        {"seconds": 2**63 - 1}, {"seconds": -(2**63)}, {"seconds": 0}, {"nanos": -1}, {"seconds": 1, "nanos": -(10**9)},
        {"seconds": 30 * 86400, "nanos": 1000},
    ],
)  # fmt: skip
async def test_no_length_of_time_is_taken_that_an_answer_cannot_hold(
    executor: Executor, field: str, length: dict[str, int]
) -> None:
    await executor.targets.ApplyTargets(targets_pb2.ApplyTargetsRequest(targets=[nowhere("web-1")]))
    with pytest.raises(InvalidArgument, match=f"{field} must be more than nothing and at most"):
        await executor.start("true", "web-1", **{field: length})
    assert not (await executor.runs.ListRuns(runs_pb2.ListRunsRequest())).runs


async def test_a_script_may_take_a_month(executor: Executor) -> None:
    await executor.targets.ApplyTargets(targets_pb2.ApplyTargetsRequest(targets=[nowhere("web-1")]))
    run = await executor.start("true", "web-1", timeout={"seconds": 30 * 86400})
    assert run.timeout.seconds == 30 * 86400


async def test_hosts_are_tried_for_no_longer_than_they_keep_journals(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    with pytest.raises(InvalidArgument, match="reach_timeout must be more than nothing and at most 6 days"):
        await executor.start("true", "web-1", reach_timeout={"seconds": 7 * 86400})


async def test_a_stored_script_runs_with_its_defaults(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    pushed = await executor.scripts.PushScript(scripts_pb2.PushScriptRequest(source=SCRIPT))
    request = runs_pb2.StartRunRequest(
        request_id="r1", script="greet", targets=["web-1"], inputs={"WHOM": "text:world"}
    )
    run = await executor.ended((await executor.runs.StartRun(request)).id)
    assert (run.script, run.revision) == ("greet", pushed.revision)
    assert dict(run.inputs) == {"WHOM": "text:world", "PORT": "text:8080"}
    assert await executor.output(await executor.task(run.id)) == b"world 8080"


@pytest.mark.parametrize(
    ("inputs", "error", "subjects"),
    [
        ({}, InputMissing, ["WHOM"]),
        ({"WHOM": "ignore"}, InputMissing, ["WHOM"]),
        ({"WHOM": "world", "PORT": "text:1"}, InputMalformed, ["PORT", "WHOM"]),
        ({"WHOM": "text:x", "BAD NAME": "text:x", "TWINLINE_RUN": "text:x", "UID": "text:0"}, InputMalformed,
         ["BAD NAME", "TWINLINE_RUN", "UID"]),
    ],
)  # fmt: skip
async def test_inputs_are_refused_with_all_that_is_wrong(
    executor: Executor, host: Sshd, inputs: dict[str, str], error: type[InputMissing], subjects: list[str]
) -> None:
    await executor.add_host(host)
    await executor.scripts.PushScript(scripts_pb2.PushScriptRequest(source=SCRIPT))
    request = runs_pb2.StartRunRequest(request_id="r1", script="greet", targets=["web-1"], inputs=inputs)
    with pytest.raises(error) as refused:
        await executor.runs.StartRun(request)
    assert sorted(violation.subject for violation in refused.value.violations) == subjects


@pytest.mark.parametrize(("source", "refused"), [(SCRIPT, True), (b'#!/bin/sh\necho "$WHOM"', False)])
async def test_only_a_header_says_that_there_are_no_other_inputs(
    executor: Executor, host: Sshd, source: bytes, refused: bool
) -> None:
    await executor.add_host(host)
    await executor.scripts.PushScript(scripts_pb2.PushScriptRequest(name="greet", source=source))
    inputs = {"WHOM": "text:x", "PROT": "text:8443"}
    request = runs_pb2.StartRunRequest(request_id="r1", script="greet", targets=["web-1"], inputs=inputs)
    if not refused:
        assert (await executor.runs.StartRun(request)).inputs == inputs
        return
    with pytest.raises(InputUnknown, match=r"'PROT'; did you mean PORT\?") as unknown:
        await executor.runs.StartRun(request)
    assert [violation.subject for violation in unknown.value.violations] == ["PROT"]


async def test_secrets_that_no_host_takes_are_refused(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    await executor.set_credential("LARGE", b"x" * 65536)
    task = await executor.run("true", "web-1", inputs={"P": 'array:["cred:LARGE","cred:LARGE"]'})
    assert (task.state, task.reason) == (Task.STATE_REFUSED, "INPUT_TOO_LARGE")


async def test_a_secret_is_masked_across_chunks_and_not_in_the_database(
    executor: Executor, host: Sshd, tmp_path: Path
) -> None:
    await executor.add_host(host)
    await executor.set_credential("PASSWORD", SECRET)
    half = len(SECRET) // 2
    command = f'[ "$P" = {SECRET[:half].decode()}""{SECRET[half:].decode()} ] || exit 9; echo "<$P>"; '
    command += f"printf %s {SECRET[:half].decode()}; sleep 0.5; printf %s {SECRET[half:].decode()}; printf hunter2"
    task = await executor.run(command, "web-1", inputs={"P": "cred:PASSWORD"})
    mask = b"*" * len(SECRET)
    assert task.exit_status == 0
    assert await executor.output(task) == b"<" + mask + b">\n" + mask + b"hunter2"
    assert dict((await executor.runs.GetRun(runs_pb2.GetRunRequest(run=task.run))).inputs) == {"P": "cred:PASSWORD"}
    assert all(SECRET not in path.read_bytes() for path in tmp_path.glob("executor.db*"))


@pytest.mark.parametrize("more", [{}, {"validate_only": True}])
async def test_credentials_that_are_not_set_refuse_a_run_and_its_plan(
    executor: Executor, host: Sshd, more: dict[str, Any]
) -> None:
    await executor.add_host(host)
    await executor.set_credential("SET", SECRET)
    inputs = {"A": "cred:NO_SUCH", "B": "cred:SET", "C": 'array:["cred:NEITHER"]'}
    with pytest.raises(NotFound, match="no credential NEITHER, NO_SUCH: set it") as refused:
        await executor.start("true", "web-1", inputs=inputs, **more)
    assert refused.value.reason == "CREDENTIAL_NOT_FOUND"
    assert [violation.subject for violation in refused.value.violations] == ["NEITHER", "NO_SUCH"]
    assert not (await executor.runs.ListRuns(runs_pb2.ListRunsRequest())).runs


async def test_a_credential_that_is_gone_by_then_refuses_every_task(
    executor: Executor, host: Sshd, tmp_path: Path
) -> None:
    await executor.add_host(host)
    url = f"sqlite:///{tmp_path / 'executor.db'}"
    leave_run(url, owner="a replica that is no more", inputs={"P": "cred:PASSWORD"})
    await executor.task_becomes("run-1", Task.STATE_REFUSED, "CREDENTIAL_NOT_FOUND")


async def test_a_run_that_names_nothing_is_refused(executor: Executor) -> None:
    with pytest.raises(InvalidArgument, match="nothing to run"):
        await executor.runs.StartRun(runs_pb2.StartRunRequest(request_id="r1", targets=["x"]))
    with pytest.raises(InvalidArgument, match="request_id is empty"):
        await executor.runs.StartRun(runs_pb2.StartRunRequest(command="true", targets=["x"]))
    with pytest.raises(ScriptNotFound):
        await executor.runs.StartRun(runs_pb2.StartRunRequest(request_id="r1", script="no such", targets=["x"]))
    with pytest.raises(RunNotFound):
        await executor.runs.GetRun(runs_pb2.GetRunRequest(run="run-none"))


async def test_a_run_that_is_only_validated_is_answered_and_not_started(executor: Executor, host: Sshd) -> None:
    for name in ("web-1", "web-2"):
        await executor.add_host(host, name)
    await executor.scripts.PushScript(scripts_pb2.PushScriptRequest(source=SCRIPT))
    request = runs_pb2.StartRunRequest(
        request_id="r1", script="greet", selector="name:web-*", inputs={"WHOM": "text:x"}, validate_only=True
    )
    planned = await executor.runs.StartRun(request)
    assert (planned.id, planned.script, planned.revision, planned.selector) == ("", "greet", 1, "name:web-*")
    assert (planned.counts.total, planned.counts.pending) == (2, 2)
    assert dict(planned.inputs) == {"WHOM": "text:x", "PORT": "text:8080"}
    assert not (await executor.runs.ListRuns(runs_pb2.ListRunsRequest())).runs
    request.validate_only = False
    assert (await executor.ended((await executor.runs.StartRun(request)).id)).counts.succeeded == 2
    request.validate_only = True
    assert (await executor.runs.StartRun(request)).id == ""


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"script": "none", "targets": ["web-1"]}, ScriptNotFound),
        ({"script": "greet", "targets": ["web-1"]}, InputMissing),
        ({"script": "greet", "targets": ["web-1"], "inputs": {"WHOM": "x"}}, InputMalformed),
        ({"command": "true", "targets": ["web-9"]}, TargetNotFound),
        ({"command": "true", "selector": "name:web-9"}, SelectionEmpty),
        ({"command": "true", "selector": "web-1"}, SelectorMalformed),
        ({"targets": ["web-1"]}, InvalidArgument),
    ],
)
async def test_validating_a_run_refuses_what_starting_it_would(
    executor: Executor, host: Sshd, fields: dict[str, Any], error: type[Error]
) -> None:
    await executor.add_host(host)
    await executor.scripts.PushScript(scripts_pb2.PushScriptRequest(source=SCRIPT))
    for more in ({"request_id": "r1"}, {"validate_only": True}):
        with pytest.raises(error):
            await executor.runs.StartRun(runs_pb2.StartRunRequest(**fields, **more))


async def test_lists_come_in_pages(executor: Executor, host: Sshd) -> None:
    for name in ("web-1", "web-2", "web-3"):
        await executor.add_host(host, name)
    runs = [await executor.start("true", selector="name:web-*") for _ in range(3)]
    first = await executor.runs.ListRuns(runs_pb2.ListRunsRequest(page_size=2))
    request = runs_pb2.ListRunsRequest(page_size=2, page_token=first.next_page_token)
    second = await executor.runs.ListRuns(request)
    assert [run.id for run in [*first.runs, *second.runs]] == [run.id for run in reversed(runs)]
    assert second.next_page_token == ""
    whole = await executor.runs.ListRuns(runs_pb2.ListRunsRequest(page_size=3))
    assert (len(whole.runs), whole.next_page_token) == (3, "")
    page = await executor.runs.ListTasks(runs_pb2.ListTasksRequest(run=runs[0].id, page_size=2))
    assert [task.target_name for task in page.tasks] == ["web-1", "web-2"]
    all_tasks = await executor.runs.ListTasks(runs_pb2.ListTasksRequest(run=runs[0].id, page_size=3))
    assert (len(all_tasks.tasks), all_tasks.next_page_token) == (3, "")
    of_another = runs_pb2.ListTasksRequest(run=runs[1].id, page_size=2, page_token=page.next_page_token)
    with pytest.raises(BadPageToken):
        await executor.runs.ListTasks(of_another)


async def test_a_deleted_target_keeps_its_runs_and_its_id(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    task = await executor.run("echo kept", "web-1")
    await executor.targets.DeleteTarget(targets_pb2.DeleteTargetRequest(target="web-1"))
    assert (await executor.task(task.run)).target_name == "web-1"
    with pytest.raises(TargetNotFound):
        await executor.start("true", "web-1")


async def test_a_watcher_sees_every_task_and_the_end(executor: Executor, host: Sshd) -> None:
    for number in range(8):
        await executor.add_host(host, f"web-{number}")
    started = await executor.start("exit $((${TWINLINE_SERVER#web-} % 2))", selector="name:web-*")
    last: dict[str, Task] = {}
    run = Run()
    async for response in executor.runs.WatchRun(runs_pb2.WatchRunRequest(run=started.id)):
        run = response.run
        last |= {task.id: task for task in response.tasks}
    assert (run.state, run.counts.succeeded, run.counts.failed) == (Run.STATE_FAILED, 4, 4)
    assert sorted(last.values(), key=str) == sorted(await executor.tasks(run.id), key=str)
    assert {task.state for task in last.values()} == {Task.STATE_SUCCEEDED, Task.STATE_FAILED}
    async for response in executor.runs.WatchRun(runs_pb2.WatchRunRequest(run=started.id, run_only=True)):
        assert (response.run, len(response.tasks)) == (run, 0)


@pytest.mark.parametrize("moment", ["2026-05-01T12:00:00", "0001-01-01T00:00:00+23:59", "yesterday"])
async def test_a_page_token_with_a_moment_that_nobody_wrote_is_refused(executor: Executor, moment: str) -> None:
    with pytest.raises(BadPageToken):
        await executor.runs.ListRuns(runs_pb2.ListRunsRequest(page_token=pages.encode(moment, "run-1")))


async def test_a_nul_in_a_name_is_the_caller_s_fault_on_postgresql_too(
    start_executor: Start, shared_database: str
) -> None:
    async with start_executor(shared_database) as executor:
        for call in (
            executor.targets.GetTarget(targets_pb2.GetTargetRequest(target="a\0")),
            executor.scripts.GetScript(scripts_pb2.GetScriptRequest(name="a\0")),
            executor.runs.GetRun(runs_pb2.GetRunRequest(run="a\0")),
            executor.start("true", "a\0"),
        ):
            with pytest.raises(InvalidArgument, match="holds a NUL"):
                await call
