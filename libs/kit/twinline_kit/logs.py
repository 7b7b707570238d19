"""JSON log lines: a fixed message, fields beside it, and the RPC they belong to."""

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

rpc: ContextVar[dict[str, str]] = ContextVar("twinline_log_fields")
"""What every line written while an RPC is served says of it: rpc, peer, trace_id. Tasks it starts inherit it."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SECRET_FIELDS = re.compile(r"(?i)(^|_)(token|secret|password|passphrase|authorization|private_key|key_pem)$")
_SECRET_TEXT = re.compile(
    r"(?i:bearer) [^\s\"']+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)"
    r"|(?<=://)[^/\s:@\"']*:[^/\s@\"']+(?=@)",
    re.DOTALL,
)
_HIDDEN = "[hidden]"
# Their info lines are about themselves.
_TALKATIVE = ("alembic", "asyncssh", "botocore", "grpc", "opentelemetry")


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON. What looks like a secret is replaced, whatever it was logged as."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """One line: ts (UTC), level, logger, msg, service, what is known of the RPC, extra fields, the traceback."""
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": _hide(record.getMessage()),
            "service": self._service,
            **rpc.get({}),
        }
        for key, value in vars(record).items():
            if key not in _STANDARD:
                line[key] = _HIDDEN if _SECRET_FIELDS.search(key) else _safe(value)
        if record.exc_info:
            line["exception"] = _hide(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def setup(service: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Send all logs of this process to `stream` (standard error) as JSON lines, replacing what was set up before."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _safe(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return _hide(str(value))


def _hide(text: str) -> str:
    return _SECRET_TEXT.sub(_HIDDEN, text)
