"""Traces reach from a call to the script it runs."""

from pathlib import Path

from tests.peers import otlp
from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from tests.peers.serving import Served
from tests.peers.sshd import Sshd
from tests.service.executor.conftest import Executor, Start
from tests.service.executor.processes import Process

COMMAND = 'printf %s "${TRACEPARENT-none}"'


async def test_a_script_of_a_recorded_run_finds_its_task_s_span(
    start_executor: Start, authority: Certificates, keys: Served, host: Sshd, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'executor.db'}"
    async with otlp.receiving() as received, start_executor(url) as other:
        await other.add_host(host)
        traced = Process(authority, keys, url, tmp_path / "traced", OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint)
        try:
            started = await traced.start_run(COMMAND)
            await other.ended(started.id)
        finally:
            await traced.stop()
        _, trace_id, span_id, _ = (await other.output(await other.task(started.id))).decode().split("-")
        spans = await eventually(lambda: {span.name: span for span in received.trace(trace_id)})
        await eventually(lambda: "twinline.tasks.ended" in received.metrics)
    assert spans["task"].span_id == span_id
    assert spans["task"].parent_id == spans["/twinline.executor.v1.RunService/StartRun"].span_id


async def test_a_script_of_any_other_run_finds_none(executor: Executor, host: Sshd) -> None:
    await executor.add_host(host)
    assert await executor.output(await executor.run(COMMAND, "web-1")) == b"none"
