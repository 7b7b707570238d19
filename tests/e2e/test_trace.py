"""One command is one trace, from the command line to the script on each host."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.peers import otlp
from tests.peers.eventually import eventually
from tests.peers.site import is_ssh_session, kill_9, running_site
from tests.suite.running import Suite

pytestmark = pytest.mark.timeout(180)

WANTED = {
    "/twinline.executor.v1.RunService/StartRun",
    "/twinline.keys.v1.CloudKeyService/Sign",
    "agent_gateway deliver",
    "task",
}


@pytest.fixture
async def received() -> AsyncIterator[otlp.Received]:
    async with otlp.receiving() as it:
        yield it


@pytest.fixture
async def site(
    received: otlp.Received, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Suite]:
    """A site whose suite and commands send telemetry."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.endpoint)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "1000")
    with ExitStack() as stack:
        suite = await asyncio.to_thread(stack.enter_context, running_site("sqlite", request, tmp_path))
        yield suite
        await asyncio.to_thread(stack.close)


async def test_a_run_is_one_connected_trace(site: Suite, received: otlp.Received) -> None:
    # So that a new connection is signed for. Not in this thread, where what the command sends is received.
    await asyncio.to_thread(kill_9, site, "web-1", is_ssh_session)
    command = ("run", "-c", 'echo "$TRACEPARENT"', "--on", "name:web-*", "-o", "json")
    run = (await asyncio.to_thread(site.good, *command)).data
    told = [task["output"].strip().split("-") for task in run["tasks"]]
    ((trace_id,), printed) = {each[1] for each in told}, {each[2] for each in told}
    spans = await eventually(lambda: complete(received.trace(trace_id), printed), within=20)
    assert [span.service for span in spans if not span.parent_id] == ["twinline-cli"]
    await eventually(lambda: bool(received.metrics), within=20)


def complete(spans: list[otlp.Span], printed: set[str]) -> list[otlp.Span]:
    """The spans of a trace that has all it should have: what scripts printed, and each span's parent, included."""
    names, known = [span.name for span in spans], {span.span_id for span in spans}
    assert set(names) >= WANTED, sorted(names)
    assert names.count("task") == 2
    assert known >= printed
    assert [span for span in spans if span.parent_id and span.parent_id not in known] == []
    return spans
