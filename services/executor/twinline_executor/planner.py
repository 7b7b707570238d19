"""Turns a request into a run and its tasks, or says all that stands in the way."""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from twinline.executor.v1 import runs_pb2 as pb
from twinline_executor import headers, inputs, selectors
from twinline_executor.active import SURELY_KEPT
from twinline_executor.errors import ScriptTooLarge, SelectionEmpty, TargetNotFound
from twinline_executor.headers import MAX_SOURCE
from twinline_executor.rows import Candidate, Run, Script, Target, Task
from twinline_executor.store.scripts import ScriptStore
from twinline_executor.store.targets import TargetStore
from twinline_kit import times
from twinline_kit.errors import InvalidArgument, Violation
from twinline_kit.ids import new_ids

MAX_TIMEOUT = timedelta(days=30)
REACH_TIMEOUT = 300.0
MAX_REACH_TIMEOUT = timedelta(seconds=SURELY_KEPT)
"""A host that dropped the journal of a task must not be asked to start it: it would run twice."""
MOST_NAMED = 1000
"""Targets that a run may be given one by one; a selector picks any number."""


def asked(request: pb.StartRunRequest) -> str:
    """A digest of what a request is for, as it was asked: what it picks may be something else a moment later.

    Time limits are no part of it: who asks again has less time left.
    """
    what = [request.WhichOneof("what"), request.script, request.command, request.revision]
    where = [request.selector, sorted(set(request.targets))]
    return hashlib.sha256(json.dumps([what, where, sorted(request.inputs.items())]).encode()).hexdigest()


class Planner:
    """Reads what a run needs; writes nothing."""

    def __init__(self, scripts: ScriptStore, targets: TargetStore, replica: str, *, max_output: int) -> None:
        self._scripts = scripts
        self._targets = targets
        self._replica = replica
        self._max_output = max_output

    def plan(
        self, request: pb.StartRunRequest, *, run_id: str, started_by: str, traceparent: str, at: datetime
    ) -> tuple[Run, list[Task]]:
        """The run wanted and one task for each target. Blocks."""
        script = self._script(request)
        resolved = _resolved(script, dict(request.inputs))
        selected = self._select(request)
        run = Run(
            id=run_id, request_id=request.request_id, script=script.name if script else "",
            revision=script.revision if script else 0, command=request.command, selector=request.selector,
            inputs=resolved, timeout=_timeout(request), reach_timeout=_reach_timeout(request),
            started_by=started_by, create_time=at, traceparent=traceparent,
            owner=self._replica, targets=tuple(target.name for target in selected) if request.targets else (),
            max_output=self._max_output, asked=asked(request),
        )  # fmt: skip
        return run, [
            Task(task_id, run_id, target.id, target.name, target.line, target.agent_id, at)
            for task_id, target in zip(new_ids("task", len(selected)), selected, strict=True)
        ]

    def _script(self, request: pb.StartRunRequest) -> Script | None:
        match request.WhichOneof("what"):
            case "script":
                return self._scripts.get(request.script, request.revision)
            case "command" if request.command.strip():
                _check_command(request.command)
                return None
        raise InvalidArgument("there is nothing to run; name a script or give a command", field="what")

    def _select(self, request: pb.StartRunRequest) -> Sequence[Target | Candidate]:
        if request.selector and request.targets:
            raise InvalidArgument("give a selector or a list of targets, not both", field="selector")
        if len(request.targets) > MOST_NAMED:
            message = f"{len(request.targets)} targets are more than {MOST_NAMED} given one by one; give a selector"
            raise InvalidArgument(message, field="targets")
        if request.targets:
            return self._named(request.targets)
        if not request.selector.strip():
            raise SelectionEmpty("no target is named; give a selector such as name:web-* or tag:role=web")
        selected = self._targets.matching(selectors.parse(request.selector))
        if not selected:
            instead = selectors.instead(request.selector, self._targets.matching(selectors.parse("")))
            hint = instead or "`twinline servers list` shows what there is"
            raise SelectionEmpty(f"no target matches {request.selector}; {hint}", selector=request.selector)
        return selected

    def _named(self, names: Sequence[str]) -> list[Target]:
        found = self._targets.find(names)
        missing = [name for name in names if name not in found]
        if missing:
            violations = [Violation("TARGET_NOT_FOUND", name, f"no target {name}") for name in missing]
            raise TargetNotFound(
                f"no target {', '.join(missing[:10])}; `twinline servers list` shows what there is",
                violations=violations,
                target=missing[0],
            )
        return list({found[name].id: found[name] for name in names}.values())


def _check_command(command: str) -> None:
    if len(command.encode()) > MAX_SOURCE:
        raise ScriptTooLarge(
            f"the command is larger than {MAX_SOURCE} bytes; push it as a script that fetches its data"
        )


def _timeout(request: pb.StartRunRequest) -> float | None:
    if not request.HasField("timeout"):
        return None
    return times.given(request.timeout, MAX_TIMEOUT, field="timeout").total_seconds()


def _reach_timeout(request: pb.StartRunRequest) -> float:
    if not request.HasField("reach_timeout"):
        return REACH_TIMEOUT
    return times.given(request.reach_timeout, MAX_REACH_TIMEOUT, field="reach_timeout").total_seconds()


def _resolved(script: Script | None, given: dict[str, str]) -> dict[str, str]:
    if script is None:
        return inputs.resolve((), given)
    undeclared = given.keys() - {declaration.name for declaration in script.inputs}
    # Without a header the declarations are guesses from the text, and the script may take more.
    return inputs.resolve(script.inputs, given, complete=bool(undeclared) and headers.read(script.source).declared)
