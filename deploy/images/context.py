"""Makes the folder that one image is built in: `context.py DISTRIBUTION WHEELS FOLDER`.

What a member needs is asked of the virtual environment, where everything is installed from the lock; how each is pinned
and hashed is copied from the lock. So an image holds exactly what was tested, less what only others need.
"""

import re
import shutil
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
OURS = "twinline-"


def needed(distribution: str) -> set[str]:
    """The names of `distribution` and of all that it needs on this kind of machine, extras followed.

    Raises PackageNotFoundError when something of it is not installed.
    """
    found: set[tuple[str, str]] = set()
    waiting = [(distribution, "")]
    while waiting:
        name, extra = each = waiting.pop()
        if each in found:
            continue
        found.add(each)
        for line in metadata.requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(requirement.name), extra) for extra in ("", *requirement.extras)]
    return {name for name, _ in found}


def locked(lock: str, names: Iterable[str]) -> str:
    """The blocks of the lock for `names`: name and version, and the hashes below them. KeyError: one is not there."""
    blocks = {block.split("==", 1)[0]: block for block in re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE) if block}
    return "".join(blocks[name] for name in sorted(names))


def write(distribution: str, wheels: Path, folder: Path) -> None:
    """Put the hashed requirements and the members' wheels for one image into `folder`."""
    names = needed(distribution)
    ours = {name for name in names if name.startswith(OURS)}
    (folder / "wheels").mkdir(parents=True)
    (folder / "requirements.txt").write_text(locked((ROOT / "requirements.lock").read_text(), names - ours))
    for name in sorted(ours):
        (wheel,) = wheels.glob(f"{name.replace('-', '_')}-[0-9]*.whl")
        shutil.copy(wheel, folder / "wheels")


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
