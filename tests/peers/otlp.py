"""An OTLP receiver that keeps what it is sent, for tests that read traces and metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_rpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc


@dataclass(frozen=True)
class Span:
    """One span as it was sent; ids in hex."""

    name: str
    service: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str]


@dataclass
class Received:
    """What came so far."""

    endpoint: str
    spans: list[Span] = field(default_factory=list)
    metrics: set[str] = field(default_factory=set)
    counted: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """The counters' points: name and attributes."""

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of one trace."""
        return [span for span in self.spans if span.trace_id == trace_id]


class _Traces(rpc.TraceServiceServicer):
    def __init__(self, received: Received) -> None:
        self._received = received

    async def Export(self, request: pb.ExportTraceServiceRequest, context: Any) -> pb.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            service = _attributes(resource.resource.attributes).get("service.name", "")
            for scope in resource.scope_spans:
                self._received.spans.extend(_span(span, service) for span in scope.spans)
        return pb.ExportTraceServiceResponse()


class _Metrics(metrics_rpc.MetricsServiceServicer):
    def __init__(self, received: Received) -> None:
        self._received = received

    async def Export(
        self, request: metrics_pb.ExportMetricsServiceRequest, context: Any
    ) -> metrics_pb.ExportMetricsServiceResponse:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                self._received.metrics.update(metric.name for metric in scope.metrics)
                points = [(metric.name, point) for metric in scope.metrics for point in metric.sum.data_points]
                self._received.counted += [(name, _attributes(point.attributes)) for name, point in points]
        return metrics_pb.ExportMetricsServiceResponse()


def _attributes(pairs: Any) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in pairs}


def _span(span: Any, service: str) -> Span:
    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
    return Span(span.name, service, *ids, _attributes(span.attributes))


@asynccontextmanager
async def receiving() -> AsyncIterator[Received]:
    """Receive on a free loopback port until the block ends; `endpoint` is what OTEL_EXPORTER_OTLP_ENDPOINT takes."""
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    received = Received(f"http://127.0.0.1:{port}")
    rpc.add_TraceServiceServicer_to_server(_Traces(received), server)  # type: ignore[no-untyped-call]
    metrics_rpc.add_MetricsServiceServicer_to_server(_Metrics(received), server)  # type: ignore[no-untyped-call]
    await server.start()
    try:
        yield received
    finally:
        await server.stop(None)
