"""Each member's pyproject lists what the member imports: one shared environment would hide what is missing."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Longest prefix first: the distribution that brings a module, where the two have different names.
DISTRIBUTIONS = {
    "google.protobuf": "protobuf",
    "google.rpc": "googleapis-common-protos",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "grpc_status": "grpcio-status",
    "opentelemetry.exporter.otlp.proto.grpc": "opentelemetry-exporter-otlp-proto-grpc",
    "opentelemetry.sdk": "opentelemetry-sdk",
    "opentelemetry": "opentelemetry-api",
    "pydantic_settings": "pydantic-settings",
    "twinline": "twinline-protos",
    "yaml": "pyyaml",
}
# Needed without an import: a database driver is named by its URL, the agent runs in processes of its own.
NOT_IMPORTED = {"twinline-kit": {"psycopg"}, "twinline-suite": {"twinline-agent"}}


def members() -> list[Path]:
    """The folders of the members, but for the generated stubs."""
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]["members"]
    folders = [path.parent for pattern in workspace for path in ROOT.glob(f"{pattern}/pyproject.toml")]
    return [folder for folder in folders if folder != ROOT / "protos/gen"]


def top(module: str) -> str:
    """The first part of a module's name."""
    return module.split(".", maxsplit=1)[0]


def distribution_of(module: str) -> str:
    """The distribution that brings `module`."""
    for prefix, name in DISTRIBUTIONS.items():
        if module == prefix or module.startswith(f"{prefix}."):
            return name
    return top(module).replace("_", "-")


def modules_of(node: ast.AST) -> list[str]:
    """The absolute modules that one statement imports."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module), names=names, level=0):
            return [f"{module}.{alias.name}" for alias in names]
        case _:
            return []


def imported(folder: Path) -> set[str]:
    """The distributions that the code of a member imports, the standard library aside."""
    trees = (ast.parse(path.read_text()) for path in folder.rglob("*.py"))
    modules = {module for tree in trees for node in ast.walk(tree) for module in modules_of(node)}
    return {distribution_of(module) for module in modules if top(module) not in sys.stdlib_module_names}


@pytest.mark.parametrize("folder", members(), ids=lambda folder: folder.name)
def test_a_member_declares_exactly_what_it_imports(folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[\[<>=;! ]", line)[0] for line in project["dependencies"]}
    needed = (imported(folder) | NOT_IMPORTED.get(project["name"], set())) - {project["name"]}

    assert sorted(needed - declared) == [], "imported and not declared"
    assert sorted(declared - needed) == [], "declared and not imported"
