"""A machine as the executor's target: what scripts are sent to, and how it is reached."""

import hashlib

import grpc.aio

from twinline.common.v1 import common_pb2
from twinline.executor.v1 import targets_pb2 as pb
from twinline.executor.v1 import targets_pb2_grpc as rpc
from twinline_kit.errors import NotFound
from twinline_launcher.models import Generation, Instance
from twinline_launcher.turns import Turn


class Targets:
    """States what the target should be whenever that differs from what was stated last."""

    def __init__(self, executor: grpc.aio.Channel) -> None:
        self._targets = rpc.TargetServiceStub(executor)

    async def ensure(self, turn: Turn) -> None:
        """Let the executor know the machine as it is now. What it may not have heard is said again."""
        digest = stated(turn.instance)
        if digest == turn.instance.target:
            return
        await self._targets.ApplyTargets(pb.ApplyTargetsRequest(targets=[wanted(turn.instance)]))
        await turn.save(target=digest)

    async def delete(self, turn: Turn) -> None:
        """Let the executor forget the machine."""
        try:
            await self._targets.DeleteTarget(pb.DeleteTargetRequest(target=turn.instance.id))
        except NotFound:
            pass  # never stated, or forgotten before
        await turn.save(target="")


def wanted(machine: Instance) -> pb.Target:
    """The target that stands for a machine."""
    target = pb.Target(
        id=machine.id,
        name=machine.server_name,
        generation=common_pb2.Generation.ValueType(machine.generation),
        deployment=machine.deployment,
        state=machine.state,
        tags=machine.tags,
    )
    if machine.generation == Generation.V5:
        target.agent.agent_id = machine.agent_id
        return target
    host, _, port = machine.address.rpartition(":")
    target.ssh.host, target.ssh.port, target.ssh.username = host, int(port or 0), machine.username
    target.ssh.cloud_key, target.ssh.host_key = machine.cloud_key, machine.host_key
    return target


def stated(machine: Instance) -> str:
    """What the machine's row has as its `target` once the executor heard of it as it is now."""
    return hashlib.sha256(wanted(machine).SerializeToString(deterministic=True)).hexdigest()
