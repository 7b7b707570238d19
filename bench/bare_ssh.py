"""The bare transport: one asyncssh program that runs a command on every host and collects what it prints.

Run as a process of its own (`python -m bench.bare_ssh`), so that what it costs can be told from what hosts cost. The
first line of input runs cold, on new connections; each further line runs on the connections that are open by then.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncssh

from bench.fleet import cpu_seconds, read_lines
from twinline_kit import loops

AT_ONCE = 50


@dataclass(frozen=True)
class Hosts:
    """Where to log in, and how; keys are in OpenSSH form."""

    addresses: list[str]
    port: int
    username: str
    private_key: str
    host_key: str

    def save(self, path: Path) -> None:
        """Write it for the process that will use it."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Hosts:
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text()))


class Program:
    """Runs one command on all hosts."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._connections: dict[str, asyncssh.SSHClientConnection] = {}
        host_key = asyncssh.import_public_key(hosts.host_key)
        self._options = asyncssh.SSHClientConnectionOptions(
            username=hosts.username,
            client_keys=[asyncssh.import_private_key(hosts.private_key)],
            known_hosts=([host_key], [], []),
            config=None,
            agent_path=None,
        )

    async def run(self, command: str) -> None:
        """Run `command` everywhere, connecting where there is no connection yet."""
        async with asyncio.TaskGroup() as group:
            for address in self._hosts.addresses:
                group.create_task(self._run_on(address, command))

    async def _run_on(self, address: str, command: str) -> None:
        async with self._limit:
            if address not in self._connections:
                self._connections[address] = await asyncssh.connect(address, self._hosts.port, options=self._options)
            done = await self._connections[address].run(command, encoding=None)
            if done.exit_status != 0 or done.stdout != b"ok\n":
                raise RuntimeError(f"{address} answered {done.exit_status} {done.stdout!r}")


async def obey(hosts: Hosts) -> None:
    """Run once for each line of input, which is a JSON object with the command."""
    program = Program(hosts)
    lines = await read_lines()
    print(json.dumps({"ready": True}), flush=True)
    while line := await lines.readline():
        began, before = time.monotonic(), cpu_seconds()
        await program.run(json.loads(line)["command"])
        print(json.dumps({"seconds": time.monotonic() - began, "cpu": cpu_seconds() - before}), flush=True)


def main() -> None:
    """Use the hosts described by the file named on the command line."""
    loops.use_uvloop_if_there()
    asyncio.run(obey(Hosts.load(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
