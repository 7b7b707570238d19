"""The bare transport: one asyncssh program that runs a script on every host and collects what it prints.

Run as a process of its own (`python -m bench.bare_ssh`), so that what it costs can be told from what hosts cost. The
first line of input runs cold, on new connections; each further line runs on the connections that are open by then.
Hosts do what they do for the suite, which is to start the script through the journal, or run it as a bare command.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncssh

from bench.fleet import cpu_seconds, read_lines
from twinline_journal import TaskSpec, frame, run_command
from twinline_kit import process

AT_ONCE = 50


@dataclass(frozen=True)
class Hosts:
    """Where to log in, and how: loopback ports with their host keys, and a private key; keys are in OpenSSH form."""

    ports: dict[int, str]
    username: str
    private_key: str

    def save(self, path: Path) -> None:
        """Write it for the process that will use it."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Hosts:
        """Read what `save` wrote."""
        given = json.loads(path.read_text())
        return cls({int(port): key for port, key in given.pop("ports").items()}, **given)


class Program:
    """Runs one script on all hosts."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._connections: dict[int, asyncssh.SSHClientConnection] = {}
        self._options = asyncssh.SSHClientConnectionOptions(
            username=hosts.username,
            client_keys=[asyncssh.import_private_key(hosts.private_key)],
            config=None,
            agent_path=None,
        )

    async def run(self, script: str, *, journal: bool) -> None:
        """Run `script` everywhere, connecting where there is no connection yet."""
        async with asyncio.TaskGroup() as group:
            for port, host_key in self._hosts.ports.items():
                group.create_task(self._run_on(port, host_key, script, journal=journal))

    async def _run_on(self, port: int, host_key: str, script: str, *, journal: bool) -> None:
        async with self._limit:
            if port not in self._connections:
                known: tuple[list[asyncssh.SSHKey], list[str], list[str]] = (
                    [asyncssh.import_public_key(host_key)],
                    [],
                    [],
                )
                options = asyncssh.SSHClientConnectionOptions(self._options, known_hosts=known)
                self._connections[port] = await asyncssh.connect("127.0.0.1", port, options=options)
            connection = self._connections[port]
            if journal:
                spec = TaskSpec(f"bare-{uuid.uuid4().hex}", script.encode())
                done = await connection.run(run_command(spec.task_id), input=frame(spec), encoding=None)
            else:
                done = await connection.run(script, encoding=None)
            if done.exit_status != 0 or done.stdout != b"ok\n":
                raise RuntimeError(f"port {port} answered {done.exit_status} {done.stdout!r} {done.stderr!r}")


async def obey(hosts: Hosts) -> None:
    """Run once for each line of input, which is a JSON object with the script and whether to use the journal."""
    program = Program(hosts)
    lines = await read_lines()
    print(json.dumps({"ready": True}), flush=True)
    while line := await lines.readline():
        began, before = time.monotonic(), cpu_seconds()
        await program.run(**json.loads(line))
        print(json.dumps({"seconds": time.monotonic() - began, "cpu": cpu_seconds() - before}), flush=True)


def main() -> None:
    """Use the hosts described by the file named on the command line."""
    process.use_uvloop_if_there()
    process.allow_many_files()
    asyncio.run(obey(Hosts.load(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
