"""What a script finds in its environment beside its inputs, and the span that its trace context names."""

from collections.abc import Mapping

from opentelemetry import propagate, trace

from twinline_executor.active import ActiveTask
from twinline_executor.rows import Run
from twinline_kit import telemetry, values


def run_env(run: Run, opened: Mapping[str, str]) -> dict[str, str]:
    """The variables that all tasks of a run share."""
    env = {"TWINLINE_RUN": run.id}
    for name, text in run.inputs.items():
        if (value := values.parse(text)) is not None:
            env[name] = value.open(opened)
    return env


def task_env(task: ActiveTask) -> dict[str, str]:
    """The variables of one task; opens its span when the run's trace is recorded."""
    env = {"TWINLINE_TASK": task.id, "TWINLINE_SERVER": task.target_name}
    if task.run.run.traceparent:
        env["TRACEPARENT"] = _traceparent(task)
    return env


def _traceparent(task: ActiveTask) -> str:
    parent = task.run.run.traceparent
    if not telemetry.is_on():
        return parent
    if task.span is None:
        context = propagate.extract({telemetry.TRACEPARENT: parent})
        attributes = {"twinline.task": task.id, "twinline.target": task.target_name}
        task.span = telemetry.tracer().start_span("task", context, attributes=attributes)
    carrier: dict[str, str] = {}
    propagate.inject(carrier, trace.set_span_in_context(task.span))
    return carrier.get(telemetry.TRACEPARENT, parent)
