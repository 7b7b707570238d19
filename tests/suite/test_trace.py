"""One run is one trace, from the command line to the task on the host."""

import asyncio
from pathlib import Path

import pytest

from tests.peers.eventually import eventually
from tests.peers.otlp import Span, receiving
from tests.suite.running import running

pytestmark = pytest.mark.timeout(240)


async def test_a_run_is_one_connected_trace(tmp_path: Path, examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as received:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        seen = await asyncio.to_thread(run_on_both_lines, tmp_path / "home", examples)
        (trace_id,) = {line.split("-")[1] for line in seen}
        await eventually(
            lambda: len(received.trace(trace_id)) > 0 and is_connected(received.trace(trace_id)), within=20
        )
    spans = received.trace(trace_id)
    assert {span.service for span in spans} >= {"twinline-cli", "twinline-suite"}
    assert [span.name for span in spans if not span.parent_id] == ["twinline run"]
    assert {line.split("-")[2] for line in seen} <= {span.span_id for span in spans}


def run_on_both_lines(home: Path, examples: Path) -> list[str]:
    """The TRACEPARENT that one run's script sees on a server of each generation."""
    with running(home) as suite:
        suite.good("apply", "-f", examples / "catalog.yaml", "-f", examples / "site.yaml")
        suite.good("servers", "launch", "web-1", "web-2", "--wait")
        command = ("run", "-c", 'echo "$TRACEPARENT"', "--on", "deployment:site", "-o", "json")
        outputs = [task["output"].strip() for task in suite.good(*command).data["tasks"]]
        suite.stop()
    return outputs


def is_connected(spans: list[Span]) -> bool:
    known = {span.span_id for span in spans}
    return all(span.parent_id in known for span in spans if span.parent_id)
