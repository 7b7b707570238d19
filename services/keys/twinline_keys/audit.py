"""Log lines for those who later ask who did what."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from twinline_kit.auth import caller
from twinline_kit.errors import Error

LONGEST = 300

log = logging.getLogger("twinline_keys.audit")


@contextmanager
def audited(action: str, **fields: str) -> Iterator[None]:
    """Log that the RPC's caller did `action`, or was refused. `fields` say on what, and are never secrets."""
    known = {"action": action, "caller": str(caller()), **{name: value[:LONGEST] for name, value in fields.items()}}
    try:
        yield
    except Error as error:
        log.info("refused", extra={**known, "reason": error.reason})
        raise
    log.info("done", extra=known)
