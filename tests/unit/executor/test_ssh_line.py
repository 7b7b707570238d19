"""Which task the SSH line carries when one comes back that it has let go of."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from tests.peers.eventually import eventually
from twinline_executor.active import ActiveRun, ActiveTask
from twinline_executor.changes import Changes
from twinline_executor.recorder import Recorder
from twinline_executor.rows import Run, Task
from twinline_executor.settings import Settings
from twinline_executor.signer import Signer
from twinline_executor.ssh_line import SshLine
from twinline_executor.states import Line, State
from twinline_executor.store.output import OutputStore
from twinline_executor.store.results import ResultStore
from twinline_executor.store.targets import TargetStore
from twinline_kit import clock, db

AT = datetime.now(UTC)
RUN = Run("run-1", "r1", "", 0, "true", "", {}, None, 300.0, "me", AT)


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[SshLine]:
    """A line to hosts that are all unknown; what it says is written nowhere."""
    files: dict[str, Any] = dict.fromkeys(("certificate_file", "key_file", "ca_file"), tmp_path)
    settings = Settings(database_url=f"sqlite:///{tmp_path / 'none.db'}", **files)
    engine = db.open(settings.database_url)
    recorder = Recorder(ResultStore(engine, "a"), OutputStore(engine), Changes(), clock=clock.now, max_output=1 << 20)
    async with grpc.aio.insecure_channel("127.0.0.1:1") as keys:
        line = SshLine(TargetStore(engine), recorder, Signer(keys, remembered=60.0), settings)
        running = asyncio.ensure_future(line.run())
        await asyncio.sleep(0)  # it has its turn
        yield line
        running.cancel()
        await asyncio.wait({running})
    engine.dispose()


def new_task() -> ActiveTask:
    """task-1, as whoever follows it anew knows it."""
    row = Task("task-1", RUN.id, "t1", "web-1", Line.SSH, "", AT)
    return ActiveTask(row, ActiveRun(RUN, deadline=float("inf")), adopted=False)


async def test_a_task_that_comes_back_is_carried_though_its_last_carrier_has_not_ended(line: SshLine) -> None:
    before, now = new_task(), new_task()
    line.carry([before], {})
    line.drop(before)
    line.carry([now], {})
    await eventually(lambda: now.settled)
    assert (now.state, now.reason, before.state) == (State.REFUSED, "TARGET_DELETED", State.PENDING)
