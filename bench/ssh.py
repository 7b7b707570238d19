"""One script on many SSH hosts: the suite, every result stored, next to a plain asyncssh program.

The hosts share this machine's cores. The program runs a bare command, which keeps nothing on its host; or has its hosts
do the same as ours, through the journal, so that what differs is what we do.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Protocol

import asyncssh

from bench.bare_ssh import Hosts
from bench.installation import Installation
from bench.processes import Steered, steered
from bench.rounds import Comparison, Cost, Round, compare
from tests.peers.sshd import Sshd, running_sshd
from twinline.common.v1.common_pb2 import GENERATION_V4
from twinline.executor.v1 import targets_pb2
from twinline.keys.v1 import cloud_keys_pb2 as pb
from twinline.keys.v1 import cloud_keys_pb2_grpc as rpc

SCRIPT = "echo ok"
NO_FLOOR = "(no floor: its hosts keep no journal)"


class BareRound(Protocol):
    """A round of the plain program; `journal`: its hosts do what they do for the suite."""

    async def __call__(self, *, journal: bool) -> Cost:
        """Run the script once on every host."""


async def measure(suite: Installation, folder: Path, *, count: int, rounds: int) -> AsyncIterator[Comparison]:
    """`count` hosts, cold (each side opens its connections) and warm (they are open)."""
    async with AsyncExitStack() as stack:
        hosts = [await stack.enter_async_context(running_sshd(folder / f"sshd-{number}")) for number in range(count)]
        key = asyncssh.generate_private_key("ssh-ed25519")
        file = folder / "hosts.json"
        ports = {host.port: host.host_key for host in hosts}
        Hosts(ports, hosts[0].username, key.export_private_key().decode()).save(file)
        turns = itertools.count()

        async def introduce() -> str:
            """The deployment of all hosts with a key of its own: the suite shares connections by host and key."""
            turn = f"turn{next(turns)}"
            ours = asyncssh.generate_private_key("ssh-ed25519")
            for host in hosts:
                host.authorize(each.export_public_key().decode() for each in (key, ours))
            cloud_key = await _stored(suite, turn, ours)
            await suite.apply_targets([_target(turn, number, host, cloud_key) for number, host in enumerate(hosts)])
            return turn

        async def suite_cold() -> Cost:
            return await suite.run(SCRIPT, f"deployment:{await introduce()}", count)

        async def bare_cold(*, journal: bool) -> Cost:
            async with steered("bench.bare_ssh", file) as program:
                await program.answer()
                return await _bare(program, journal=journal)

        title = f"one script on {count} SSH hosts, cold"
        for compared in _both(title, count, suite_cold, bare_cold, rounds, note=""):
            yield await compared

        warm = await introduce()
        program = await stack.enter_async_context(steered("bench.bare_ssh", file))
        await program.answer()

        async def suite_warm() -> Cost:
            return await suite.run(SCRIPT, f"deployment:{warm}", count)

        async def bare_warm(*, journal: bool) -> Cost:
            return await _bare(program, journal=journal)

        title = f"one script on {count} SSH hosts, on open connections"
        for compared in _both(title, count, suite_warm, bare_warm, rounds, note=NO_FLOOR):
            yield await compared


def _both(
    title: str, count: int, suite: Round, bare: BareRound, rounds: int, *, note: str
) -> Iterator[Awaitable[Comparison]]:
    """Next to a bare command, of which `note` holds, then to the same through the journal."""
    yield compare(title, count, suite=suite, bare=partial(bare, journal=False), rounds=rounds, note=note)
    title += ", next to the same through the journal"
    yield compare(title, count, suite=suite, bare=partial(bare, journal=True), rounds=rounds)


async def _bare(program: Steered, *, journal: bool) -> Cost:
    answer = await program.ask({"script": SCRIPT, "journal": journal})
    return Cost(answer["seconds"], answer["cpu"])


def _target(turn: str, number: int, host: Sshd, cloud_key: str) -> targets_pb2.Target:
    name = f"{turn}-{number}"
    line = targets_pb2.SshLine(
        host="127.0.0.1", port=host.port, username=host.username, cloud_key=cloud_key, host_key=host.host_key
    )
    return targets_pb2.Target(id=name, name=name, generation=GENERATION_V4, deployment=turn, ssh=line)


async def _stored(suite: Installation, name: str, key: asyncssh.SSHKey) -> str:
    """Put a key into `keys`; its id."""
    stub = rpc.CloudKeyServiceStub(suite.people)
    public = key.export_public_key().decode().strip()
    made = await stub.ImportCloudKey(
        pb.ImportCloudKeyRequest(name=name, public_key=public, request_id=str(uuid.uuid4()))
    )
    private = key.export_private_key()
    await stub.UploadCloudKeyMaterial(pb.UploadCloudKeyMaterialRequest(key=made.id, private_key=private))
    return made.id
