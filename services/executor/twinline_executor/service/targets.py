"""Targets: check, act, answer."""

from asyncio import to_thread
from collections.abc import Sequence

import asyncssh
from google.protobuf import empty_pb2

from twinline.common.v1 import common_pb2
from twinline.executor.v1 import targets_pb2 as pb
from twinline.executor.v1 import targets_pb2_grpc as rpc
from twinline_executor import convert, selectors
from twinline_executor.ssh_login import host_key_line
from twinline_executor.store.targets import TargetStore
from twinline_kit import pages
from twinline_kit.clock import Clock
from twinline_kit.errors import InvalidArgument
from twinline_kit.interceptors import Context

AT_ONCE = 1000
LONGEST = {"id": 128, "name": 255, "deployment": 255, "state": 64}
TAGS = 100
LONGEST_TAG = 255


class TargetService(rpc.TargetServiceServicer):
    """The hosts that scripts can run on."""

    def __init__(self, targets: TargetStore, *, clock: Clock) -> None:
        self._targets = targets
        self._clock = clock

    async def ApplyTargets(self, request: pb.ApplyTargetsRequest, context: Context) -> pb.ApplyTargetsResponse:
        _check_together(request.targets)
        for index, target in enumerate(request.targets):
            _check(target, f"targets[{index}]")
        wanted = [convert.target_row(target) for target in request.targets]
        stored = await to_thread(self._targets.apply, wanted, at=self._clock())
        return pb.ApplyTargetsResponse(targets=[convert.target(row) for row in stored])

    async def GetTarget(self, request: pb.GetTargetRequest, context: Context) -> pb.Target:
        return convert.target(await to_thread(self._targets.get, request.target))

    async def ListTargets(self, request: pb.ListTargetsRequest, context: Context) -> pb.ListTargetsResponse:
        size = pages.page_size(request.page_size)
        picks = selectors.parse(request.selector)
        after = pages.after(request.page_token, filter=request.selector)
        rows = await to_thread(self._targets.page, picks, after=after, limit=size + 1)
        page, following = pages.slice(rows, size, lambda row: row.name, filter=request.selector)
        return pb.ListTargetsResponse(targets=[convert.target(row) for row in page], next_page_token=following)

    async def DeleteTarget(self, request: pb.DeleteTargetRequest, context: Context) -> empty_pb2.Empty:
        await to_thread(self._targets.delete, request.target)
        return empty_pb2.Empty()


def _check_together(targets: Sequence[pb.Target]) -> None:
    if len(targets) > AT_ONCE:
        raise InvalidArgument(
            f"{len(targets)} targets are more than {AT_ONCE}; apply them in several calls", field="targets"
        )
    for what in ("id", "name"):
        values = [getattr(target, what) for target in targets]
        if len(set(values)) < len(values):
            raise InvalidArgument(f"two of the targets have the same {what}", field="targets")


def _check(target: pb.Target, where: str) -> None:
    for field, longest in LONGEST.items():
        value = getattr(target, field)
        if len(value) > longest or not value.isprintable():
            raise InvalidArgument(
                f"{field} of target {target.id} is too long or not printable", field=f"{where}.{field}"
            )
    if not target.id or not target.name:
        raise InvalidArgument("a target has no id or no name; give it both", field=where)
    if len(target.tags) > TAGS or any(len(tag) > LONGEST_TAG or not tag.isprintable() for tag in target.tags):
        raise InvalidArgument(
            f"tags of target {target.id} are too many, too long or not printable", field=f"{where}.tags"
        )
    if target.generation == common_pb2.GENERATION_V5:
        if target.WhichOneof("line") != "agent" or not target.agent.agent_id:
            raise InvalidArgument(f"target {target.name} is v5; name its agent", field=f"{where}.agent")
    elif target.WhichOneof("line") != "ssh" or not target.ssh.host or not target.ssh.cloud_key:
        raise InvalidArgument(f"target {target.name} is v4; give its host and cloud key", field=f"{where}.ssh")
    else:
        _check_ssh(target, f"{where}.ssh")


def _check_ssh(target: pb.Target, where: str) -> None:
    line = target.ssh
    for field, longest in {"host": 255, "username": 64, "cloud_key": 255}.items():
        value = getattr(line, field)
        if len(value) > longest or not value.isprintable() or " " in value:
            raise InvalidArgument(
                f"{field} of target {target.name} is too long or not printable", field=f"{where}.{field}"
            )
    if line.port > 65535:
        raise InvalidArgument(f"port {line.port} of target {target.name} is above 65535", field=f"{where}.port")
    if line.host_key:
        try:
            line.host_key = host_key_line(asyncssh.import_public_key(line.host_key))
        except asyncssh.KeyImportError:
            message = f"host key of target {target.name} is no OpenSSH public key"
            raise InvalidArgument(message, field=f"{where}.host_key") from None
