"""How runs are shown."""

import pytest

from twinline.executor.v1 import runs_pb2 as pb
from twinline_cli.results import where


@pytest.mark.parametrize(
    ("run", "shown"),
    [
        (pb.Run(selector="name:web-*"), "name:web-*"),
        (pb.Run(targets=["web-1", "db 1"]), "web-1, db 1"),
        (pb.Run(targets=[f"web-{number}" for number in range(20)]), "web-0, web-1, web-2 and 17 more"),
    ],
)
def test_a_run_says_where_it_ran(run: pb.Run, shown: str) -> None:
    assert where(run) == shown
