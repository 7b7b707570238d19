"""The agent is light."""

import ast
import sys
from pathlib import Path

import twinline_agent

ALLOWED = {"twinline_agent", "twinline_journal", "twinline", "grpc", "google"}


def imported(source: Path) -> set[str]:
    """The full names of all modules that a file imports."""
    nodes = list(ast.walk(ast.parse(source.read_text())))
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def test_the_agent_imports_grpc_protobuf_the_journal_and_the_standard_library_only() -> None:
    names = {name for source in Path(twinline_agent.__path__[0]).glob("*.py") for name in imported(source)}
    assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names <= ALLOWED
    assert {name for name in names if name.startswith("google")} <= {
        "google.protobuf.duration_pb2",
        "google.protobuf.timestamp_pb2",
    }
    assert {name for name in names if name.startswith("twinline.")} == {"twinline.agent_gateway.v1"}
