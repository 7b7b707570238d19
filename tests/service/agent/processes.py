"""Real agents in processes of their own."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from twinline.agent_gateway.v1 import fleet_pb2


def write_user_data(path: Path, enrollment: fleet_pb2.CreateEnrollmentResponse) -> Path:
    """User-data as a machine finds it."""
    given = {
        "enroll_address": enrollment.enroll_address,
        "connect_address": enrollment.connect_address,
        "authority": enrollment.authority.decode(),
        "token": enrollment.token,
        "agent_id": enrollment.agent_id,
    }
    path.write_text(json.dumps(given))
    path.chmod(0o600)
    return path


class AgentProcess:
    """One agent on one host: its home, its user-data, and the process while it runs."""

    def __init__(self, home: Path, user_data: Path, agent_id: str) -> None:
        self.home = home
        self.user_data = user_data
        self.agent_id = agent_id
        self._process: Process | None = None

    async def start(self, **environ: str) -> None:
        """Start it; what it writes goes to its log."""
        command = [sys.executable, "-m", "twinline_agent", "--home", str(self.home), "--user-data", str(self.user_data)]
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdout=log, stderr=log, env={**os.environ, **environ}
            )

    async def kill(self) -> None:
        """`kill -9`."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> int:
        """Ask it to end, and return its exit status."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self._process.wait(), 20)

    async def exit_status(self) -> int:
        """Wait for it to end by itself."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), 20)

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    @property
    def log_file(self) -> Path:
        """What it wrote."""
        return self.home.with_suffix(".log")

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return self.log_file.read_text()

    def on_another_machine(self, home: Path) -> "AgentProcess":
        """The same user-data on another host."""
        return AgentProcess(home, self.user_data, self.agent_id)


@asynccontextmanager
async def running_agent(home: Path, enrollment: fleet_pb2.CreateEnrollmentResponse) -> AsyncIterator[AgentProcess]:
    """An agent with that enrolment, until the block ends."""
    user_data = write_user_data(home.with_suffix(".json"), enrollment)
    agent = AgentProcess(home, user_data, enrollment.agent_id)
    await agent.start()
    try:
        yield agent
    finally:
        await agent.stop()
