"""A delivery's place in the trace of its run."""

from collections.abc import Mapping

from opentelemetry import propagate, trace

from twinline_kit import telemetry

VARIABLE = "TRACEPARENT"
"""The environment variable that carries the trace context to a script."""

_SAMPLED = 1


def traced(env: Mapping[str, str], *, agent_id: str, task_id: str) -> dict[str, str]:
    """The task's environment; in a trace that is recorded, with a span of this delivery in place of its parent."""
    passed = dict(env)
    if not telemetry.is_on() or VARIABLE not in passed:
        return passed
    parent = propagate.extract({telemetry.TRACEPARENT: passed[VARIABLE]})
    context = trace.get_current_span(parent).get_span_context()
    if not context.is_valid or not context.trace_flags & _SAMPLED:
        return passed
    attributes = {"twinline.agent": agent_id, "twinline.task": task_id}
    span = telemetry.tracer().start_span("agent_gateway deliver", parent, attributes=attributes)
    carrier: dict[str, str] = {}
    propagate.inject(carrier, trace.set_span_in_context(span))
    span.end()
    passed[VARIABLE] = carrier.get(telemetry.TRACEPARENT, passed[VARIABLE])
    return passed
