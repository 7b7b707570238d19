"""Who may call what. Not in the table: nobody."""

from twinline_kit.auth import Access, Grant

_READ = frozenset({Grant.OBSERVER, Grant.ADMIN, Grant.LAUNCHER})
_WRITE = frozenset({Grant.ADMIN, Grant.LAUNCHER})

TARGETS: Access = {
    "/twinline.executor.v1.TargetService/ApplyTargets": _WRITE,
    "/twinline.executor.v1.TargetService/GetTarget": _READ,
    "/twinline.executor.v1.TargetService/ListTargets": _READ,
    "/twinline.executor.v1.TargetService/DeleteTarget": _WRITE,
}

SCRIPTS: Access = {
    "/twinline.executor.v1.ScriptService/PushScript": _WRITE,
    "/twinline.executor.v1.ScriptService/GetScript": _READ,
    "/twinline.executor.v1.ScriptService/ListScripts": _READ,
    "/twinline.executor.v1.ScriptService/LintScript": _READ,
}

RUNS: Access = {
    "/twinline.executor.v1.RunService/StartRun": _WRITE,
    "/twinline.executor.v1.RunService/GetRun": _READ,
    "/twinline.executor.v1.RunService/ListRuns": _READ,
    "/twinline.executor.v1.RunService/ListTasks": _READ,
    "/twinline.executor.v1.RunService/WatchRun": _READ,
    "/twinline.executor.v1.RunService/ReadOutput": _READ,
    "/twinline.executor.v1.RunService/CancelRun": _WRITE,
}

ACCESS: Access = {**TARGETS, **SCRIPTS, **RUNS}
