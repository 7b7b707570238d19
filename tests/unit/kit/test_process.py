"""What a process that serves does to itself."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource
from twinline_kit import process
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(process.allow_many_files(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("soft", "hard", "then"), [(256, 4096, 4096), (4096, 4096, 4096), (64, 64, 64)])
def test_the_limit_on_open_files_is_raised_as_far_as_it_goes(soft: int, hard: int, then: int) -> None:
    code = SCRIPT.format(soft=soft, hard=hard)

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)

    assert done.stdout.split() == [str(then), str(then), str(hard)]
