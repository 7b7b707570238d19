"""Targets and scripts, through the API."""

import pytest

from tests.peers.sshd import Sshd
from tests.service.executor.conftest import Executor, Task
from twinline.executor.v1 import scripts_pb2, targets_pb2
from twinline_executor.errors import (
    ScriptHeaderMalformed,
    ScriptNotFound,
    ScriptTooLarge,
    SelectorMalformed,
    TargetDeleted,
    TargetNameTaken,
    TargetNotFound,
)
from twinline_kit.errors import InvalidArgument

Target = targets_pb2.Target


def v4(number: int, **fields: object) -> Target:
    """A v4 target."""
    ssh = targets_pb2.SshLine(host="192.0.2.1", cloud_key="k")
    return Target(**{"id": f"t{number}", "name": f"web-{number}", "ssh": ssh} | fields)  # type: ignore[arg-type]


def v5(number: int, **fields: object) -> Target:
    """A v5 target."""
    agent = targets_pb2.AgentLine(agent_id=f"agent-{number}")
    return Target(**{"id": f"t{number}", "name": f"app-{number}", "generation": 5, "agent": agent} | fields)  # type: ignore[arg-type]


async def apply(executor: Executor, *targets: Target) -> list[Target]:
    return list((await executor.targets.ApplyTargets(targets_pb2.ApplyTargetsRequest(targets=targets))).targets)


async def names(executor: Executor, selector: str = "") -> list[str]:
    answer = await executor.targets.ListTargets(targets_pb2.ListTargetsRequest(selector=selector))
    return [target.name for target in answer.targets]


async def test_applying_twice_changes_nothing(executor: Executor) -> None:
    first = await apply(executor, v4(1), v5(2))
    assert (first[0].generation, first[0].ssh.port, first[0].ssh.username) == (4, 22, "root")
    assert await apply(executor, v4(1), v5(2)) == first
    changed = await apply(executor, v4(1, state="operational"))
    assert changed[0].state == "operational"
    assert changed[0].update_time.ToNanoseconds() > first[0].update_time.ToNanoseconds()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (v4(1, id=""), "no id"),
        (v4(1, name=""), "no id or no name"),
        (v4(1, generation=5), "is v5; name its agent"),
        (v5(1, generation=4), "is v4; give its host"),
        (v4(1, ssh=targets_pb2.SshLine(host="h")), "is v4; give its host and cloud key"),
        (v4(1, ssh=targets_pb2.SshLine(host="h", cloud_key="k", host_key="x")), "is no OpenSSH public key"),
        (v4(1, ssh=targets_pb2.SshLine(host="h", cloud_key="k", port=70000)), "port 70000"),
        (v4(1, name="a\nb"), "not printable"),
    ],
)
async def test_a_target_that_cannot_be_reached_is_refused(executor: Executor, target: Target, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        await apply(executor, target)
    assert await names(executor) == []


async def test_a_name_belongs_to_one_target(executor: Executor) -> None:
    await apply(executor, v4(1))
    with pytest.raises(TargetNameTaken, match="target t1 has the name web-1 already"):
        await apply(executor, v4(3), v4(2, name="web-1"))
    assert await names(executor) == ["web-1"]


async def test_a_deleted_target_frees_its_name_and_not_its_id(executor: Executor) -> None:
    await apply(executor, v4(1))
    await executor.targets.DeleteTarget(targets_pb2.DeleteTargetRequest(target="t1"))
    assert await names(executor) == []
    with pytest.raises(TargetDeleted):
        await apply(executor, v4(1))
    with pytest.raises(TargetNotFound):
        await executor.targets.GetTarget(targets_pb2.GetTargetRequest(target="t1"))
    assert (await apply(executor, v4(2, name="web-1")))[0].name == "web-1"


async def test_targets_are_listed_by_selector_and_in_pages(executor: Executor) -> None:
    await apply(executor, *(v4(n, tags=["role=web"]) for n in range(5)), v5(5, state="operational"))
    assert await names(executor, "generation:v5 or name:web-3") == ["app-5", "web-3"]
    first = await executor.targets.ListTargets(targets_pb2.ListTargetsRequest(selector="tag:role=*", page_size=3))
    request = targets_pb2.ListTargetsRequest(selector="tag:role=*", page_size=3, page_token=first.next_page_token)
    second = await executor.targets.ListTargets(request)
    assert [target.name for target in second.targets] == ["web-3", "web-4"]
    whole = await executor.targets.ListTargets(targets_pb2.ListTargetsRequest(page_size=6))
    assert (len(whole.targets), second.next_page_token, whole.next_page_token) == (6, "", "")
    with pytest.raises(SelectorMalformed, match="column 8"):
        await names(executor, "name:a (")


async def push(executor: Executor, source: bytes, name: str = "") -> scripts_pb2.Script:
    return await executor.scripts.PushScript(scripts_pb2.PushScriptRequest(name=name, source=source))


async def test_a_revision_appears_only_with_another_text(executor: Executor) -> None:
    assert [(await push(executor, text, "s")).revision for text in (b"one", b"one", b"two", b"one")] == [1, 1, 2, 3]
    old = await executor.scripts.GetScript(scripts_pb2.GetScriptRequest(name="s", revision=2))
    assert old.source == b"two"
    await push(executor, b"", "empty")
    listed = await executor.scripts.ListScripts(scripts_pb2.ListScriptsRequest())
    assert [(script.name, script.revision, script.source) for script in listed.scripts] == [
        ("empty", 1, b""),
        ("s", 3, b""),
    ]
    whole = await executor.scripts.ListScripts(scripts_pb2.ListScriptsRequest(page_size=2))
    assert (len(whole.scripts), whole.next_page_token) == (2, "")
    first = await executor.scripts.ListScripts(scripts_pb2.ListScriptsRequest(page_size=1))
    request = scripts_pb2.ListScriptsRequest(page_size=1, page_token=first.next_page_token)
    assert [script.name for script in (await executor.scripts.ListScripts(request)).scripts] == ["s"]


async def test_a_script_that_cannot_be_read_is_refused_with_its_line(executor: Executor) -> None:
    with pytest.raises(ScriptHeaderMalformed, match="line 4") as refused:
        await push(executor, b"#!/bin/sh\n# ---\n# Inputs: {}\n# Colour: red\n# ...\n", "s")
    assert refused.value.metadata["line"] == "4"
    with pytest.raises(ScriptTooLarge):
        await push(executor, bytes((1 << 20) + 1), "s")
    with pytest.raises(InvalidArgument, match="no name"):
        await push(executor, b"true")
    with pytest.raises(ScriptNotFound):
        await executor.scripts.GetScript(scripts_pb2.GetScriptRequest(name="s"))


async def test_lint_says_what_push_would_refuse_and_stores_nothing(executor: Executor) -> None:
    request = scripts_pb2.LintScriptRequest(source=b"echo $PORT\r\n# ---\n# Inputs: 3\n# ...\n")
    findings = (await executor.scripts.LintScript(request)).findings
    assert [(finding.line, finding.error) for finding in findings] == [(3, True), (1, False), (1, False)]
    assert not (await executor.scripts.ListScripts(scripts_pb2.ListScriptsRequest())).scripts


async def test_a_target_named_as_the_id_of_another_gets_none_of_its_tasks(executor: Executor, host: Sshd) -> None:
    nobody = targets_pb2.SshLine(host="127.0.0.1", port=1, cloud_key="launch-key")
    namesake = targets_pb2.Target(id="target-db-1", name="target-web-1", ssh=nobody)
    await executor.add_host(host)
    await executor.targets.ApplyTargets(targets_pb2.ApplyTargetsRequest(targets=[namesake]))
    for asked in ("target-web-1", "web-1"):
        task = await executor.run("true", asked, reach_timeout={"seconds": 10})
        assert (task.state, task.target, task.target_name) == (Task.STATE_SUCCEEDED, "target-web-1", "web-1")
