"""Lock files say what is installed, by name, version and hash, and never where it comes from."""

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK_NAME = re.compile(r"(\.lock|[-_.]lock\.(json|toml|ya?ml)|^pylock\..*toml|^requirements.*\.txt|-lock\.json)$")
HOST = re.compile(r"\b[a-z0-9-]+\.(org|com|io|net|dev|cloud)\b", re.IGNORECASE)
REQUIREMENT = re.compile(r"^[a-z0-9][a-z0-9._-]*==\S+( ; .+)? \\$")


def locks() -> list[Path]:
    """Every lock file of the workspace but uv.lock, which is never committed."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "node_modules"]
        found += [Path(folder, name) for name in names if LOCK_NAME.search(name) and name != "uv.lock"]
    return sorted(found)


def test_the_lock_of_the_workspace_is_there() -> None:
    assert ROOT / "requirements.lock" in locks()


@pytest.mark.parametrize("lock", locks(), ids=lambda lock: str(lock.relative_to(ROOT)))
def test_no_lock_holds_an_address(lock: Path) -> None:
    lines = enumerate(lock.read_text().splitlines(), start=1)

    assert [number for number, line in lines if "://" in line or HOST.search(line)] == []


def test_every_requirement_is_pinned_and_hashed() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    requirements = [line for line in lines if not line.startswith("    --hash=sha256:")]

    assert requirements
    assert [line for line in requirements if not REQUIREMENT.match(line)] == []
