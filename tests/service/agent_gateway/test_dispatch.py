"""Work down, reports up."""

import asyncio
import logging
from contextlib import AsyncExitStack

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.peers.eventually import eventually
from tests.service.agent_gateway.executors import Executor
from tests.service.agent_gateway.running import Gateway
from tests.service.agent_gateway.simulated import SimulatedAgent, finished, simulated
from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline.agent_gateway.v1 import fleet_pb2
from twinline_agent.convert import to_spec
from twinline_agent_gateway import dispatch_streams, router
from twinline_agent_gateway.errors import StreamFenced
from twinline_kit import telemetry, values

PIECE = 64 << 10


async def test_a_task_goes_down_and_its_report_comes_up(gateway: Gateway, executor: Executor) -> None:
    async with simulated(gateway) as agent:
        task = await executor.run(agent.agent_id, "echo hi", env={"B": "task"}, work={"env": {"A": "run", "B": "run"}})
        (delivery,) = (await agent.orders()).deliveries
        assert (delivery.task_id, delivery.work.script) == (task, b"echo hi")
        assert dict(delivery.work.env) == {"A": "run", "B": "task"}
        await agent.report(finished(task, b"hi\n"))
        await eventually(lambda: executor.result(task))
        assert executor.stored(task).output == b"hi\n"
        (ack,) = (await agent.orders()).acks
        assert (ack.task_id, ack.offset, ack.final) == (task, 3, False)


async def test_many_tasks_for_one_agent_arrive_in_few_messages(gateway: Gateway, executor: Executor) -> None:
    tasks = [f"task-{number}" for number in range(1000)]
    async with simulated(gateway) as agent:
        await executor.state(agent.agent_id, *tasks, script="true")
        messages = 0
        arrived: list[str] = []
        while len(arrived) < len(tasks):
            arrived += [delivery.task_id for delivery in (await agent.orders()).deliveries]
            messages += 1
        assert arrived == tasks
        assert messages < 10


async def test_what_an_agent_says_at_length_or_in_fields_of_its_own_is_not_passed_on(
    gateway: Gateway, executor: Executor
) -> None:
    async with simulated(gateway) as agent:
        wordy, odd = await executor.run(agent.agent_id, "true"), await executor.run(agent.agent_id, "true")
        report = pb.TaskReport(task_id=wordy, state=pb.TaskReport.STATE_RUNNING, message="x" * (100 << 10))
        for _ in range(3):
            await agent.report(*[report] * 100)
        unknown = b"\xba\x3e" + b"\x80\x80\x40" + bytes(1 << 20)  # field 999, a MiB of bytes
        strange = pb.TaskReport.FromString(finished(odd).SerializeToString() + unknown)
        assert strange.ByteSize() > 1 << 20
        await agent.report(strange)
        await eventually(lambda: executor.result(odd))
        assert {len(each.message) for each in executor.stored(wordy).reports} == {1000}
        assert executor.stored(odd).reports[-1].ByteSize() < 100
    assert executor.ended is None


async def test_an_agent_cannot_report_on_the_task_of_another(
    gateway: Gateway, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    async with simulated(gateway) as honest, simulated(gateway) as forger:
        task, own = await executor.run(honest.agent_id, "true"), await executor.run(forger.agent_id, "true")
        await honest.orders()
        await forger.orders()
        with caplog.at_level(logging.WARNING):
            await forger.report(finished(task, b"forged"), finished("task-of-nobody"), finished(own, b"mine"))
            await eventually(lambda: executor.result(own))
        assert "reports on another agent's tasks dropped" in caplog.messages
        await honest.report(finished(task, b"true"))
        await eventually(lambda: executor.result(task))
        assert executor.stored(task).output == b"true"
        assert "task-of-nobody" not in executor.tasks


async def test_who_is_not_there_is_told_apart(gateway: Gateway, executor: Executor) -> None:
    never, gone, revoked = [(await gateway.enrollment()).agent_id for _ in range(3)]
    await gateway.fleet.RevokeAgent(fleet_pb2.RevokeAgentRequest(agent_id=revoked))
    tasks = {name: await executor.run(name, "true") for name in (never, revoked, "agent-unknown")}
    await eventually(lambda: len(executor.not_connected) == 3)
    told = [executor.not_connected[tasks[name]] for name in (never, revoked, "agent-unknown")]
    assert told == ["NEVER_ENROLLED", "REVOKED", "NEVER_ENROLLED"]
    assert gone not in executor.tasks


async def test_presence_is_told_so_that_work_is_stated_again(gateway: Gateway, executor: Executor) -> None:
    agent_id = (await gateway.enrollment()).agent_id
    task = await executor.run(agent_id, "true")
    await eventually(lambda: task in executor.not_connected)
    async with simulated(gateway, agent_id) as agent:
        await eventually(lambda: agent_id in executor.present)
        await executor.state(agent_id, task, script="true")
        assert [delivery.task_id for delivery in (await agent.orders()).deliveries] == [task]


async def test_the_latest_delivery_decides_where_reports_go(gateway: Gateway, executor: Executor) -> None:
    channel = gateway.served.as_service("executor")
    async with simulated(gateway) as agent, Executor().connected(channel, "executor-2") as other:
        await executor.state(agent.agent_id, "task-1", script="true")
        await agent.orders()
        await other.state(agent.agent_id, "task-1")
        assert not (await agent.orders()).deliveries[0].HasField("work")
        await agent.report(finished("task-1"))
        await eventually(lambda: other.result("task-1"))
        assert executor.stored("task-1").over is None


async def test_a_second_stream_of_one_dispatcher_ends_the_first(gateway: Gateway, executor: Executor) -> None:
    async with Executor().connected(gateway.served.as_service("executor")):
        await eventually(lambda: isinstance(executor.ended, StreamFenced))


async def test_reports_for_a_dispatcher_that_is_gone_are_dropped(gateway: Gateway, executor: Executor) -> None:
    async with simulated(gateway) as agent:
        async with Executor().connected(gateway.served.as_service("executor"), "executor-2") as other:
            await other.state(agent.agent_id, "task-1", script="true")
            await agent.orders()
        task = await executor.run(agent.agent_id, "true")
        await agent.orders()
        await agent.report(finished("task-1"), finished(task))
        await eventually(lambda: executor.result(task))


async def test_an_environment_is_bounded_in_bytes_the_runs_and_the_tasks_together(
    gateway: Gateway, executor: Executor
) -> None:
    half = "é" * (values.LARGEST_TOTAL // 4 - 1)  # with a name of two bytes half of what is allowed
    async with simulated(gateway) as agent:
        fits = await executor.run(agent.agent_id, "true", env={"BB": half}, work={"env": {"AA": half}})
        (delivery,) = (await agent.orders()).deliveries
        large = await executor.run(agent.agent_id, "true", env={"BB": half + "!"}, work={"env": {"AA": half}})
        await eventually(lambda: executor.stored(large).states == ["REJECTED"])
        assert "bytes, more than 1048576: make it smaller" in executor.stored(large).reports[0].message
    assert (delivery.task_id, to_spec(delivery).env) == (fits, {"AA": half, "BB": half})


async def test_work_that_is_too_large_is_rejected_before_it_travels(gateway: Gateway, executor: Executor) -> None:
    async with simulated(gateway) as agent:
        task = await executor.run(agent.agent_id, "x" * (5 << 20))
        await eventually(lambda: executor.stored(task).states == ["REJECTED"])
        assert "make the script or its environment smaller" in executor.stored(task).reports[0].message


async def test_an_agent_that_takes_nothing_gets_no_more_than_a_bounded_number_and_harms_no_other(
    gateway: Gateway, executor: Executor
) -> None:
    tasks = [f"task-{number}" for number in range(1100)]
    async with simulated(gateway) as stuck, simulated(gateway) as other:
        await executor.state(stuck.agent_id, *tasks, script="x" * (1 << 20))
        await eventually(lambda: any(each.states == ["REJECTED"] for each in executor.tasks.values()))
        rejected = [each.reports[0].message for each in executor.tasks.values() if each.reports]
        assert len(rejected) < 1100 - 1024
        assert all("wait for this agent already" in message for message in rejected)
        await executor.run(other.agent_id, "true")
        assert (await other.orders()).deliveries[0].work.script == b"true"


async def test_an_executor_that_reads_nothing_holds_back_the_agent_and_loses_nothing(
    gateway: Gateway, executor: Executor
) -> None:
    size, count = 64 << 10, 400
    executor.reads.clear()
    async with simulated(gateway) as agent:
        task = await executor.run(agent.agent_id, "true")
        await agent.orders()
        pieces = [pb.TaskReport(task_id=task, offset=number * size, data=bytes(size)) for number in range(count)]
        sending = asyncio.ensure_future(agent.report_each(pieces))
        _, waiting = await asyncio.wait([sending], timeout=2)
        assert waiting
        executor.reads.set()
        await sending
        await eventually(lambda: len(executor.stored(task).output) == size * count, within=30)


async def send_output(agent: SimulatedAgent, size: int) -> None:
    """Obey: of each task that is delivered, report so many bytes from where they are wanted on."""
    while True:
        for delivery in (await agent.orders()).deliveries:
            offsets = range(delivery.from_offset, size, PIECE)
            await agent.report_each(
                pb.TaskReport(task_id=delivery.task_id, offset=each, data=bytes(PIECE)) for each in offsets
            )


async def test_what_agents_say_to_an_executor_that_reads_nothing_is_not_all_kept_and_all_of_it_arrives_later(
    gateway: Gateway, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "MOST_HELD", 2 * PIECE)
    monkeypatch.setattr(dispatch_streams, "MOST_BYTES", 2 * PIECE)
    size, held_back = 16 * PIECE, 4
    executor.reads.clear()
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        agents = [await stack.enter_async_context(simulated(gateway)) for _ in range(10)]
        for agent in agents:
            executor.restates[agent.agent_id] = [await executor.run(agent.agent_id, "true")]
        told = [group.create_task(send_output(agent, size)) for agent in agents]
        # Those for whom there is no room at all are read on, and can send it to the end; few are held back.
        await eventually(lambda: sum(agent.reports >= 16 for agent in agents) >= len(agents) - held_back, within=30)
        executor.reads.set()
        tasks = [task for each in executor.restates.values() for task in each]
        await eventually(lambda: all(len(executor.stored(task).output) == size for task in tasks), within=30)
        for each in told:
            each.cancel()


async def test_a_recorded_trace_has_a_span_of_the_delivery(
    gateway: Gateway, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_installed", [provider])
    monkeypatch.setattr(telemetry, "tracer", lambda: provider.get_tracer("test"))
    trace_id, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with simulated(gateway) as agent:
        await executor.run(agent.agent_id, "true", env={"TRACEPARENT": f"00-{trace_id}-{parent}-01"})
        passed = (await agent.orders()).deliveries[0].work.env["TRACEPARENT"]
        (span,) = [span for span in exporter.get_finished_spans() if span.name == "agent_gateway deliver"]
        assert span.parent is not None
        assert span.context is not None
        assert f"{span.parent.span_id:016x}" == parent
        assert passed == f"00-{trace_id}-{span.context.span_id:016x}-01"
        await executor.run(agent.agent_id, "true", env={"TRACEPARENT": f"00-{trace_id}-{parent}-00"})
        assert (await agent.orders()).deliveries[0].work.env["TRACEPARENT"].endswith(f"{parent}-00")
