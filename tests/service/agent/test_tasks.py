"""Tasks on a real agent."""

import hashlib
from pathlib import Path

from google.protobuf.duration_pb2 import Duration

from tests.peers.eventually import eventually
from tests.service.agent.processes import AgentProcess
from tests.service.agent_gateway.executors import Executor
from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline.agent_gateway.v1 import fleet_pb2
from twinline_kit.ids import new_id

FIVE_MIB = 5 << 20


async def test_a_task_is_reported_with_its_output_and_end(agent: AgentProcess, executor: Executor) -> None:
    task = await executor.run(agent.agent_id, 'echo "$GREETING"; exit 3', env={"GREETING": "hello"})
    result = await eventually(lambda: executor.result(task))
    assert executor.stored(task).output == b"hello\n"
    assert (result.end, result.exit_status, result.signal) == (pb.TaskReport.END_EXITED, 3, 0)
    assert executor.stored(task).states[-1] == "FINISHED"
    assert result.start_time.seconds > 0
    assert result.end_time.ToNanoseconds() >= result.start_time.ToNanoseconds()


async def test_output_comes_while_a_task_runs(agent: AgentProcess, executor: Executor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    task = await executor.run(agent.agent_id, f"echo one; until [ -e {gate} ]; do sleep 0.05; done; echo two")
    await eventually(lambda: executor.stored(task).output == b"one\n")
    gate.touch()
    await eventually(lambda: executor.result(task))
    assert executor.stored(task).output == b"one\ntwo\n"


async def test_5_mib_come_through_the_window_unaltered(agent: AgentProcess, executor: Executor, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.write_bytes(hashlib.shake_256(b"seed").digest(FIVE_MIB))
    task = await executor.run(agent.agent_id, f"cat {content}")
    await eventually(lambda: executor.result(task), within=30)
    assert executor.stored(task).output == content.read_bytes()
    assert executor.stored(task).repeated == 0
    assert all(len(report.data) <= 64 << 10 for report in executor.stored(task).reports)


async def test_without_acknowledgements_no_more_than_the_window_is_sent(
    agent: AgentProcess, executor: Executor
) -> None:
    executor.acknowledges = False
    task = await executor.run(agent.agent_id, f"head -c {FIVE_MIB} /dev/zero")
    await eventually(lambda: len(executor.stored(task).output) == 1 << 20)
    other = await executor.run(agent.agent_id, "echo other")
    await eventually(lambda: executor.result(other))
    assert len(executor.stored(task).output) == 1 << 20
    executor.acknowledges = True
    await executor.order(agent.agent_id, acks=[pb.OutputAck(task_id=task, offset=1 << 20)])
    await eventually(lambda: executor.result(task), within=30)
    assert executor.stored(task).output == bytes(FIVE_MIB)


async def test_a_task_that_is_delivered_twice_runs_once(
    agent: AgentProcess, executor: Executor, tmp_path: Path
) -> None:
    task, trace = new_id("task"), tmp_path / "trace"
    for _ in range(3):
        await executor.state(agent.agent_id, task, script=f"echo ran | tee -a {trace}")
    await eventually(lambda: executor.result(task))
    await executor.state(agent.agent_id, task, script=f"echo ran | tee -a {trace}")
    reports = len(executor.stored(task).reports)
    await eventually(lambda: len(executor.stored(task).reports) > reports)
    assert trace.read_text() == "ran\n"
    assert executor.stored(task).output == b"ran\n"


async def test_a_running_task_is_canceled_and_one_that_never_started_never_starts(
    agent: AgentProcess, executor: Executor
) -> None:
    running, later = await executor.run(agent.agent_id, "echo up; sleep 600"), new_id("task")
    await eventually(lambda: executor.stored(running).output == b"up\n")
    await executor.order(agent.agent_id, cancel=[running, later])
    result = await eventually(lambda: executor.result(running))
    assert result.end == pb.TaskReport.END_CANCELED
    await executor.state(agent.agent_id, later, script="echo never")
    result = await eventually(lambda: executor.result(later))
    assert (result.end, executor.stored(later).output) == (pb.TaskReport.END_CANCELED, b"")


async def test_a_script_that_forges_its_end_is_interrupted_and_its_agent_stays_calm(
    agent: AgentProcess, executor: Executor, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    record = "reason=exited status=0 signal=0 size=1000000 dropped=0 started=1 ended=2"
    script = f"echo hi; echo '{record}' >../exit; until [ -e {gate} ]; do sleep 0.05; done"
    task = await executor.run(agent.agent_id, script)
    result = await eventually(lambda: executor.result(task), within=30)
    assert (result.state, result.end) == (pb.TaskReport.STATE_INTERRUPTED, pb.TaskReport.END_JOURNAL_UNREADABLE)
    assert executor.stored(task).output == b"hi\n"
    other = await executor.run(agent.agent_id, "true")
    await eventually(lambda: executor.result(other))
    assert len(executor.stored(task).reports) < 10
    gate.touch()


async def test_limits_hold(agent: AgentProcess, executor: Executor) -> None:
    limits = {"timeout": Duration(nanos=300_000_000), "kill_after": Duration(nanos=100_000_000)}
    slow = await executor.run(agent.agent_id, "trap '' TERM; while :; do sleep 1; done", work=limits)
    loud = await executor.run(agent.agent_id, "echo 1234567890", work={"max_output": 4})
    result = await eventually(lambda: executor.result(slow))
    assert (result.end, result.signal) == (pb.TaskReport.END_TIMED_OUT, 9)
    result = await eventually(lambda: executor.result(loud))
    assert (result.output_truncated, executor.stored(loud).output) == (True, b"1234")


async def test_bad_deliveries_are_rejected_and_harm_no_other(agent: AgentProcess, executor: Executor) -> None:
    work = pb.Work(script=b"echo fine")
    bad = [
        fleet_pb2.AgentTask(task_id="../../etc", agent_id=agent.agent_id),
        fleet_pb2.AgentTask(task_id="task-name", agent_id=agent.agent_id, env={"NOT A NAME": "x"}),
        fleet_pb2.AgentTask(task_id="task-nul", agent_id=agent.agent_id, env={"A": "\0"}),
        fleet_pb2.AgentTask(task_id="task-offset", agent_id=agent.agent_id, from_offset=-1),
        fleet_pb2.AgentTask(task_id="task-env", agent_id=agent.agent_id, env={"A": "x" * (2 << 20)}),
    ]
    good = fleet_pb2.AgentTask(task_id="task-good", agent_id=agent.agent_id)
    batch = fleet_pb2.DispatchBatch(work=work, tasks=[*bad, good])
    await executor.send(fleet_pb2.DispatchRequest(batches=[batch]))
    await eventually(lambda: executor.result("task-good"))
    for task in bad:
        await eventually(lambda each=task.task_id: executor.stored(each).states == ["REJECTED"])  # type: ignore[misc]
        assert executor.stored(task.task_id).reports[0].message


async def test_what_the_journal_does_not_have_is_absent_and_is_not_started(
    agent: AgentProcess, executor: Executor
) -> None:
    await executor.state(agent.agent_id, "task-unknown")
    await eventually(lambda: executor.stored("task-unknown").states == ["ABSENT"])


async def test_a_final_acknowledgement_lets_the_journal_forget(agent: AgentProcess, executor: Executor) -> None:
    task = await executor.run(agent.agent_id, "true")
    await eventually(lambda: executor.result(task))
    await executor.order(agent.agent_id, acks=[pb.OutputAck(task_id=task, final=True)])
    await eventually((agent.home / "journal" / "tasks" / task / "forgotten").exists)


async def test_100_tasks_at_once_all_come_back(agent: AgentProcess, executor: Executor) -> None:
    tasks = [new_id("task") for _ in range(100)]
    await executor.state(agent.agent_id, *tasks, script="echo $((6 * 7))")
    for task in tasks:
        await eventually(lambda each=task: executor.result(each), within=60)  # type: ignore[misc]
    assert {executor.stored(task).output for task in tasks} == {b"42\n"}
