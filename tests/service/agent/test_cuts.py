"""Nothing runs twice and nothing is missing, whatever is killed or cut."""

from contextlib import AsyncExitStack
from pathlib import Path

from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from tests.peers.relay import running_relay
from tests.peers.serving import Served
from tests.service.agent.processes import AgentProcess, running_agent
from tests.service.agent_gateway.executors import Executor
from tests.service.agent_gateway.running import Gateway, gateway_settings, running_gateway
from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline_kit.ids import new_id

COUNT = "echo ran >>{trace}; for i in $(seq 2000); do echo line $i; [ $((i % 20)) -ne 0 ] || sleep 0.01; done"
COUNTED = "".join(f"line {number}\n" for number in range(1, 2001)).encode()


async def test_an_agent_killed_in_mid_run_and_started_again_goes_on(
    agent: AgentProcess, executor: Executor, tmp_path: Path
) -> None:
    task, trace = new_id("task"), tmp_path / "trace"
    await executor.state(agent.agent_id, task, script=COUNT.format(trace=trace))
    await eventually(lambda: len(executor.stored(task).output) > 100)
    await agent.kill()
    executor.present.clear()
    await agent.start()
    await eventually(lambda: agent.agent_id in executor.present, within=30)
    await executor.state(agent.agent_id, task, script=COUNT.format(trace=trace))
    await eventually(lambda: executor.result(task), within=30)
    assert executor.stored(task).output == COUNTED
    assert trace.read_text() == "ran\n"


async def test_what_ended_while_the_agent_was_dead_is_told_when_it_is_back(
    agent: AgentProcess, executor: Executor, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    task = await executor.run(agent.agent_id, f"echo up; sleep 0.5; echo down; touch {done}; exit 7")
    await eventually(lambda: executor.stored(task).output == b"up\n")
    await agent.kill()
    await eventually(done.exists)
    executor.present.clear()
    await agent.start()
    await eventually(lambda: agent.agent_id in executor.present, within=30)
    await executor.state(agent.agent_id, task)
    result = await eventually(lambda: executor.result(task))
    assert (result.exit_status, executor.stored(task).output) == (7, b"up\ndown\n")


async def test_a_task_whose_processes_are_gone_is_interrupted_and_says_so(
    agent: AgentProcess, executor: Executor
) -> None:
    kill_all = "kill -9 $(awk '/^supervisor/ {print $2}' ../pid) $$"
    task = await executor.run(agent.agent_id, f"echo up; {kill_all}")
    result = await eventually(lambda: executor.result(task))
    assert (result.state, result.end) == (pb.TaskReport.STATE_INTERRUPTED, pb.TaskReport.END_PROCESS_GONE)
    assert executor.stored(task).output == b"up\n"


async def test_a_stream_that_is_cut_again_and_again_loses_and_repeats_nothing(
    gateway: Gateway, executor: Executor, tmp_path: Path
) -> None:
    task, trace = new_id("task"), tmp_path / "trace"
    mesh_port = int(gateway.served.bound.mesh.rpartition(":")[2])
    async with running_relay(mesh_port) as relay:
        enrollment = await gateway.enrollment()
        enrollment.connect_address = f"127.0.0.1:{relay.port}"
        async with running_agent(tmp_path / "agent", enrollment) as agent:
            await eventually(lambda: agent.agent_id in executor.present, within=30)
            for _ in range(3):
                executor.present.clear()
                await executor.state(agent.agent_id, task, script=COUNT.format(trace=trace))
                stored = len(executor.stored(task).output)
                await eventually(lambda size=stored: len(executor.stored(task).output) > size)  # type: ignore[misc]
                assert relay.cut() > 0
                await eventually(lambda: agent.agent_id in executor.present, within=30)
            await executor.state(agent.agent_id, task, script=COUNT.format(trace=trace))
            await eventually(lambda: executor.result(task), within=30)
    assert executor.stored(task).output == COUNTED
    assert trace.read_text() == "ran\n"


async def test_a_gateway_that_starts_again_finds_its_agents_and_their_tasks(
    authority: Certificates, keys: Served, tmp_path: Path
) -> None:
    settings = gateway_settings(authority, tmp_path / "gateway", keys, f"sqlite:///{tmp_path / 'gateway.db'}")
    executor, task, trace = Executor(), new_id("task"), tmp_path / "trace"
    async with AsyncExitStack() as stack:
        async with running_gateway(authority, settings) as gateway:
            agent = await stack.enter_async_context(running_agent(tmp_path / "agent", await gateway.enrollment()))
            async with executor.connected(gateway.served.as_service("executor")):
                await eventually(lambda: agent.agent_id in executor.present, within=30)
                await executor.state(agent.agent_id, task, script=COUNT.format(trace=trace))
                await eventually(lambda: len(executor.stored(task).output) > 100)
        executor.present.clear()
        again = await stack.enter_async_context(running_gateway(authority, settings))
        await stack.enter_async_context(executor.connected(again.served.as_service("executor")))
        await eventually(lambda: agent.agent_id in executor.present, within=30)
        await executor.state(agent.agent_id, task)
        await eventually(lambda: executor.result(task), within=30)
    assert executor.stored(task).output == COUNTED
    assert trace.read_text() == "ran\n"


async def test_a_journal_that_is_damaged_in_one_place_harms_no_other_task(
    agent: AgentProcess, executor: Executor
) -> None:
    damaged = await executor.run(agent.agent_id, "true")
    await eventually(lambda: executor.result(damaged))
    await agent.kill()
    (agent.home / "journal" / "tasks" / damaged / "exit").write_bytes(b"reason\xff= status\n")
    executor.present.clear()
    await agent.start()
    await eventually(lambda: agent.agent_id in executor.present, within=30)
    await executor.state(agent.agent_id, damaged, script="true")
    await eventually(lambda: executor.stored(damaged).reports[-1].end == pb.TaskReport.END_JOURNAL_UNREADABLE)
    task = await executor.run(agent.agent_id, "echo fine")
    await eventually(lambda: executor.result(task))
    assert executor.stored(task).output == b"fine\n"
