"""A script that counts until it is told to stop, and writes down outside of everything what it did."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tests.peers.runs import Runs, Task

# It ends by itself after a while, lest a test that failed leaves it behind.
COMMAND = """\
echo "$TWINLINE_TASK" >>"$FOLDER/starts-$TWINLINE_SERVER"
i=0
until [ -e "$FOLDER/enough" ] || [ $i -ge 4000 ]; do
    i=$((i + 1))
    printf 'line %06d %0500d\\n' $i 0
    sleep 0.02
done
echo $i >"$FOLDER/lines-$TWINLINE_SERVER"
"""
MUCH = 8_000
"""Bytes of output that cannot have been on their way already."""


@dataclass(frozen=True)
class Counting:
    """One run of the script, which may be on several servers."""

    folder: Path

    @property
    def inputs(self) -> dict[str, str]:
        """What the run must be given."""
        return {"FOLDER": f"text:{self.folder}"}

    async def start(self, runs: Runs, selector: str) -> str:
        """Start it and wait until all servers count; the run's id."""
        run = await runs.start(COMMAND, selector, self.inputs)
        await runs.grows(run, by=MUCH)
        return run

    def stop(self) -> None:
        """Let the script come to its end."""
        (self.folder / "enough").touch()

    def has_ended(self, server: str) -> bool:
        """Whether the script has come to its end there, whoever noticed."""
        return (self.folder / f"lines-{server}").exists()

    async def holds(self, runs: Runs, run: str) -> None:
        """Each server's script ran once, succeeded, and its output has no gap and no repeat."""
        for task in await runs.ended(run):
            assert (task.state, task.exit_status, task.signal) == (Task.STATE_SUCCEEDED, 0, 0), task
            assert (self.folder / f"starts-{task.target_name}").read_text() == f"{task.id}\n"
            expected = self._printed(task.target_name)
            assert await runs.output(task) == expected
            assert (task.output_size, task.output_truncated) == (len(expected), False)
            assert task.output_sha256 == hashlib.sha256(expected).hexdigest()

    def _printed(self, server: str) -> bytes:
        last = int((self.folder / f"lines-{server}").read_text())
        return "".join(f"line {i:06d} {0:0500d}\n" for i in range(1, last + 1)).encode()
