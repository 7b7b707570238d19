"""A suite in a process of its own, on a throw-away home."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import rmtree

import grpc.aio

from twinline.keys.v1 import people_pb2, people_pb2_grpc
from twinline_cli import home as client_home
from twinline_kit.client import api_channel
from twinline_kit.errors import Error
from twinline_suite.demo import processes
from twinline_suite.demo.failure import DemoFailed

SSHD_PROGRAM = "TWINLINE_LAUNCHER_SSHD_PROGRAM"
"""Names OpenSSH's server where it is in no usual place."""

START_LIMIT = 60.0
STOP_LIMIT = 30.0

_PAUSE = 0.1
_LOG_LINES = 15
_STEP = "start the suite"


class SuiteProcess:
    """A running `twinline up`."""

    def __init__(self, home: Path, process: asyncio.subprocess.Process) -> None:
        self.home = home
        self._process = process

    def channel(self) -> grpc.aio.Channel:
        """A channel to it, as any program would open one."""
        client = client_home.client(self.home)
        return api_channel(client.address, client.ca, client.token)

    async def wait_until_it_answers(self) -> None:
        """Return when it answers a person's call. DemoFailed when it ends or stays silent."""
        try:
            async with asyncio.timeout(START_LIMIT):
                while not await self._answers():
                    if self._process.returncode is not None:
                        raise DemoFailed(_STEP, f"it ended with status {self._process.returncode}: {self.said()}")
                    await asyncio.sleep(_PAUSE)
        except TimeoutError:
            raise DemoFailed(_STEP, f"it does not answer within {START_LIMIT:g} s") from None

    async def stop(self) -> int:
        """End it as Ctrl-C would; its exit status."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)
        async with asyncio.timeout(STOP_LIMIT):
            return await self._process.wait()

    def said(self) -> str:
        """What it wrote on standard error, in one line."""
        return " ".join((self.home.parent / "stderr").read_text(encoding="utf-8", errors="replace").split())

    def log_tail(self) -> list[str]:
        """The last lines of its log, without those that say of a call that it went well."""
        try:
            lines = (self.home / "logs" / "suite.log").read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        return [line for line in lines if not ('"msg": "rpc"' in line and '"code": "OK"' in line)][-_LOG_LINES:]

    async def _answers(self) -> bool:
        if not client_home.client_files(self.home).address.exists():
            return False
        try:
            async with self.channel() as channel:
                await people_pb2_grpc.PeopleServiceStub(channel).WhoAmI(people_pb2.WhoAmIRequest(), timeout=5)
        except Error:
            return False
        return True


@asynccontextmanager
async def started() -> AsyncIterator[SuiteProcess]:
    """Start a suite on a new home and free ports. However the block ends, nothing of it is left."""
    folder = await asyncio.to_thread(_new_folder)
    try:
        suite = await _start(folder / "home")
        try:
            await suite.wait_until_it_answers()
            yield suite
        finally:
            await _end(suite)
    finally:
        await asyncio.to_thread(processes.kill, folder)
        await asyncio.to_thread(rmtree, folder, ignore_errors=True)


def _new_folder() -> Path:
    """A folder that nobody else has: the home goes into it, and what the suite says beside it."""
    return Path(tempfile.mkdtemp(prefix="twinline-demo-")).resolve()


def _environment() -> dict[str, str]:
    """Ours, without the settings of a real suite: its databases are not for throw-away data; its programs are."""
    return {
        name: value for name, value in os.environ.items() if name == SSHD_PROGRAM or not name.startswith("TWINLINE_")
    }


async def _start(home: Path) -> SuiteProcess:
    command = [sys.executable, "-m", "twinline_suite", "up", "--home", str(home), "--port", "0"]
    with (home.parent / "stderr").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=errors,
            # Ctrl-C is for the demo alone: it ends the suite itself, after its servers.
            start_new_session=True,
        )
    return SuiteProcess(home, process)


async def _end(suite: SuiteProcess) -> None:
    try:
        await suite.stop()
    except TimeoutError:
        pass  # what is left of it is killed with the rest of the home
