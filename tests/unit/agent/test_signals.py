"""What scripts inherit from the agent."""

import subprocess
import sys

AS_NOHUP_DOES = 'trap \'\' HUP; exec "$0" -c "$1"'
START_A_SCRIPT = """
import subprocess
from twinline_agent.__main__ import pass_on_no_ignored_signals
{before}
print(subprocess.run(["sh", "-c", "kill -1 $$"]).returncode)
"""


def ended_by(before: str) -> int:
    """How a script ends that hangs up on itself, below an agent that was told to ignore that."""
    command = ["sh", "-c", AS_NOHUP_DOES, sys.executable, START_A_SCRIPT.format(before=before)]
    return int(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)


def test_a_signal_that_the_agent_was_started_to_ignore_still_ends_scripts() -> None:
    assert ended_by("") == 0
    assert ended_by("pass_on_no_ignored_signals()") == -1
