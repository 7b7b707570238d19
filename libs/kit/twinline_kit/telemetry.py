"""OpenTelemetry traces and metrics, only where an OTLP endpoint is set. Otherwise nothing of the SDK is imported.

Metrics: a service makes its instruments at import with `meter()`; without an endpoint they do nothing.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry import metrics, propagate, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Telemetry is on when one of these environment variables is set."""

METRICS_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
"""Metrics are sent when one of these is set."""

TRACEPARENT = "traceparent"

_EXPORT_LIMIT = 3.0
"""Seconds for one export. The last one is waited for at the end, so a receiver that hangs must not hold it."""
_COMMAND_LIMIT = 1.0
"""The same for a command, whose end a person waits for."""

# The API's own providers are one a process too, and can be set only once.
_installed: "list[TracerProvider]" = []
_metering: "list[MeterProvider]" = []


def start(service: str, *, is_command: bool = False) -> None:
    """Send spans and metrics of this process to the OTLP endpoint in the environment; without one do nothing.

    A command tries once, and is silent when nobody receives.
    """
    if is_command:
        # Without any handler, Python itself would write warnings to standard error.
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
    how = _once() if is_command else {"timeout": _EXPORT_LIMIT}
    if not _installed and any(os.environ.get(name) for name in ENDPOINTS):
        _start_traces(f"twinline-{service}", how)
    if not _metering and any(os.environ.get(name) for name in METRICS_ENDPOINTS):
        _start_metrics(f"twinline-{service}", how)


def _once() -> dict[str, Any]:
    """How an exporter is told not to try again: the codes after which it would are none that a receiver answers."""
    return {"timeout": _COMMAND_LIMIT, "retryable_error_codes": [grpc.StatusCode.OK]}


def _start_traces(name: str, how: Mapping[str, Any]) -> None:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(**how)))
    install(provider)


def _start_metrics(name: str, how: Mapping[str, Any]) -> None:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    reader = PeriodicExportingMetricReader(OTLPMetricExporter(**how))
    provider = MeterProvider([reader], Resource.create({SERVICE_NAME: name}))
    metrics.set_meter_provider(provider)
    _metering.append(provider)


def install(provider: "TracerProvider") -> None:
    """Use `provider` for all spans of this process. `start` does this; call it to send spans elsewhere than by OTLP."""
    trace.set_tracer_provider(provider)
    _installed.append(provider)


def stop() -> None:
    """Send what is left and end."""
    while _installed:
        _installed.pop().shutdown()
    while _metering:
        _metering.pop().shutdown()


def is_on() -> bool:
    """Whether spans are made at all."""
    return bool(_installed)


def tracer() -> trace.Tracer:
    """The tracer for our spans; one that does nothing while telemetry is off."""
    return trace.get_tracer("twinline")


def meter() -> metrics.Meter:
    """The meter for our instruments; they do nothing while metrics are not sent."""
    return metrics.get_meter("twinline")


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
