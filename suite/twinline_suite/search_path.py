"""Whether a person who types `twinline` gets this one."""

import shlex
import shutil
import sys
from pathlib import Path

_OURS = Path(sys.executable).parent


def export() -> list[str]:
    """The command that makes `twinline` be found, when it is not already the one beside our interpreter."""
    ours, found = _OURS / "twinline", shutil.which("twinline")
    if not ours.exists() or (found is not None and Path(found).samefile(ours)):
        return []
    return [f"export PATH={shlex.quote(str(_OURS))}:$PATH"]
