"""One script on many SSH hosts: the suite, every result stored, next to a plain asyncssh program."""

from __future__ import annotations

import itertools
import uuid
from contextlib import AsyncExitStack
from pathlib import Path

import asyncssh

from bench.bare_ssh import Hosts
from bench.installation import Installation
from bench.processes import steered
from bench.rounds import Comparison, Cost, compare
from tests.peers.sshd import Sshd, running_sshd
from twinline.common.v1.common_pb2 import GENERATION_V4
from twinline.executor.v1 import targets_pb2
from twinline.keys.v1 import cloud_keys_pb2 as pb
from twinline.keys.v1 import cloud_keys_pb2_grpc as rpc

COMMAND = "echo ok"
NO_FLOOR = "(no floor: the hosts keep a journal, synced to disk twice; a bare command keeps nothing)"


async def measure(suite: Installation, folder: Path, *, count: int, rounds: int) -> list[Comparison]:
    """`count` hosts, cold (each side opens its connections) and warm (they are open)."""
    async with AsyncExitStack() as stack:
        hosts = [await stack.enter_async_context(running_sshd(folder / f"sshd-{number}")) for number in range(count)]
        key = asyncssh.generate_private_key("ssh-ed25519")
        for host in hosts:
            host.authorize([key.export_public_key().decode()])
        cloud_key = await _stored(suite, key)
        file = folder / "hosts.json"
        ports = {host.port: host.host_key for host in hosts}
        Hosts(ports, hosts[0].username, key.export_private_key().decode()).save(file)
        turns = itertools.count()

        def targets(turn: str) -> list[targets_pb2.Target]:
            return [_target(turn, number, host, cloud_key) for number, host in enumerate(hosts)]

        async def suite_cold() -> Cost:
            turn = f"turn{next(turns)}"  # new targets: nothing is open to them
            await suite.apply_targets(targets(turn))
            return await suite.run(COMMAND, f"deployment:{turn}", count)

        async def bare_cold() -> Cost:
            async with steered("bench.bare_ssh", file) as program:
                await program.answer()
                answer = await program.ask({"command": COMMAND})
                return Cost(answer["seconds"], answer["cpu"])

        cold = await compare(
            f"one command on {count} SSH hosts, cold", count, suite=suite_cold, bare=bare_cold, rounds=rounds
        )

        warm_turn = f"warm{uuid.uuid4().hex[:6]}"
        await suite.apply_targets(targets(warm_turn))
        program = await stack.enter_async_context(steered("bench.bare_ssh", file))
        await program.answer()

        async def suite_warm() -> Cost:
            return await suite.run(COMMAND, f"deployment:{warm_turn}", count)

        async def bare_warm() -> Cost:
            answer = await program.ask({"command": COMMAND})
            return Cost(answer["seconds"], answer["cpu"])

        title = f"one command on {count} SSH hosts, warm"
        warm = await compare(title, count, suite=suite_warm, bare=bare_warm, rounds=rounds, note=NO_FLOOR)
    return [cold, warm]


def _target(turn: str, number: int, host: Sshd, cloud_key: str) -> targets_pb2.Target:
    name = f"{turn}-{number}"
    line = targets_pb2.SshLine(
        host="127.0.0.1", port=host.port, username=host.username, cloud_key=cloud_key, host_key=host.host_key
    )
    return targets_pb2.Target(id=name, name=name, generation=GENERATION_V4, deployment=turn, ssh=line)


async def _stored(suite: Installation, key: asyncssh.SSHKey) -> str:
    """Put the hosts' key into `keys`; its id."""
    stub = rpc.CloudKeyServiceStub(suite.people)
    public = key.export_public_key().decode().strip()
    made = await stub.ImportCloudKey(
        pb.ImportCloudKeyRequest(name="bench", public_key=public, request_id=str(uuid.uuid4()))
    )
    private = key.export_private_key()
    await stub.UploadCloudKeyMaterial(pb.UploadCloudKeyMaterialRequest(key=made.id, private_key=private))
    return made.id
