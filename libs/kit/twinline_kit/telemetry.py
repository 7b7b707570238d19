"""OpenTelemetry, only where an OTLP endpoint is set. Otherwise nothing is imported, installed or paid for."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Telemetry is on when one of these environment variables is set."""

TRACEPARENT = "traceparent"

# The API's own provider is one a process too, and can be set only once.
_installed: "list[TracerProvider]" = []


def start(service: str) -> None:
    """Send spans of this process to the OTLP endpoint in the environment; without one do nothing."""
    if _installed or not any(os.environ.get(name) for name in ENDPOINTS):
        return
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: f"twinline-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    install(provider)


def install(provider: "TracerProvider") -> None:
    """Use `provider` for all spans of this process. `start` does this; call it to send spans elsewhere than by OTLP."""
    trace.set_tracer_provider(provider)
    _installed.append(provider)


def stop() -> None:
    """Send what is left and end."""
    while _installed:
        _installed.pop().shutdown()


def is_on() -> bool:
    """Whether spans are made at all."""
    return bool(_installed)


def tracer() -> trace.Tracer:
    """The tracer for our spans; one that does nothing while telemetry is off."""
    return trace.get_tracer("twinline")


def inject(carrier: dict[str, str]) -> None:
    """Write the present trace context into `carrier` (keys as in HTTP headers); nothing while telemetry is off."""
    if _installed:
        propagate.inject(carrier)


def current_traceparent() -> str:
    """The W3C `traceparent` of the present span, or "" when it is not being recorded."""
    if not _installed or not trace.get_current_span().is_recording():
        return ""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get(TRACEPARENT, "")


def current_trace_id() -> str:
    """The trace id of the present span in hex, or "" when there is none."""
    context = trace.get_current_span().get_span_context() if _installed else trace.INVALID_SPAN_CONTEXT
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


@contextmanager
def serving_span(method: str, carrier: Mapping[str, str]) -> Iterator[Span]:
    """A server span for the RPC `method` below the trace context in `carrier`, current within the block."""
    parent = propagate.extract(dict(carrier))
    attributes = {"rpc.system": "grpc", "rpc.method": method.lstrip("/")}
    with tracer().start_as_current_span(method, parent, SpanKind.SERVER, attributes, record_exception=False) as span:
        yield span


def calling_span(method: str, carrier: dict[str, str]) -> Span:
    """A client span for a call of `method`, its context written into `carrier`. The caller must end it."""
    attributes = {"rpc.system": "grpc", "rpc.method": method.lstrip("/")}
    span = tracer().start_span(method, kind=SpanKind.CLIENT, attributes=attributes)
    propagate.inject(carrier, trace.set_span_in_context(span))
    return span


def record_code(span: Span, code: str, *, failed: bool) -> None:
    """Note with which canonical code an RPC ended."""
    span.set_attribute("rpc.grpc.status_code", code)
    if failed:
        span.set_status(StatusCode.ERROR, code)
