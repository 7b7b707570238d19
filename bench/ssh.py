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
from tests.peers.sshd import running_sshd
from twinline.common.v1.common_pb2 import GENERATION_V4
from twinline.executor.v1 import targets_pb2
from twinline.keys.v1 import cloud_keys_pb2 as pb
from twinline.keys.v1 import cloud_keys_pb2_grpc as rpc

COMMAND = "echo ok"


async def measure(suite: Installation, folder: Path, *, count: int, rounds: int) -> list[Comparison]:
    """`count` hosts, cold (each side opens its connections) and warm (they are open)."""
    addresses = [f"127.0.0.{number + 2}" for number in range(count)]
    listen = "\n".join(f"ListenAddress {address}" for address in addresses)
    async with AsyncExitStack() as stack:
        sshd = await stack.enter_async_context(running_sshd(folder / "sshd", more=listen))
        key = asyncssh.generate_private_key("ssh-ed25519")
        sshd.authorize([key.export_public_key().decode()])
        cloud_key = await _stored(suite, key)
        file = folder / "hosts.json"
        Hosts(addresses, sshd.port, sshd.username, key.export_private_key().decode(), sshd.host_key).save(file)
        turns = itertools.count()

        def targets(turn: str) -> list[targets_pb2.Target]:
            login = targets_pb2.SshLine(
                port=sshd.port, username=sshd.username, cloud_key=cloud_key, host_key=sshd.host_key
            )
            return [_target(turn, number, address, login) for number, address in enumerate(addresses)]

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

        warm = await compare(
            f"one command on {count} SSH hosts, warm", count, suite=suite_warm, bare=bare_warm, rounds=rounds
        )
    return [cold, warm]


def _target(turn: str, number: int, address: str, login: targets_pb2.SshLine) -> targets_pb2.Target:
    name = f"{turn}-{number}"
    target = targets_pb2.Target(id=name, name=name, generation=GENERATION_V4, deployment=turn, ssh=login)
    target.ssh.host = address
    return target


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
