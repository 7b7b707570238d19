"""What the executor asks of keys, and how often. The keys service is one that counts."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncssh
import grpc
import grpc.aio
import pytest

from twinline.keys.v1 import cloud_keys_pb2, cloud_keys_pb2_grpc
from twinline_executor.signer import Signer

PUBLIC = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()


class Keys(cloud_keys_pb2_grpc.CloudKeyServiceServicer):
    """Has one key, until it has none."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_there = True

    async def GetCloudKey(self, request: cloud_keys_pb2.GetCloudKeyRequest, context: Any) -> cloud_keys_pb2.CloudKey:
        self.asked += 1
        if not self.is_there:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such key")
        return cloud_keys_pb2.CloudKey(id="key-1", name=request.key, public_key=PUBLIC, has_material=True)


@pytest.fixture
async def keys() -> Keys:
    """The keys service that is asked."""
    return Keys()  # type: ignore[abstract]  # nothing else is called


@pytest.fixture
async def channel(keys: Keys) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to it."""
    server = grpc.aio.server()
    cloud_keys_pb2_grpc.add_CloudKeyServiceServicer_to_server(keys, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


async def test_many_hosts_with_one_key_ask_for_it_once(keys: Keys, channel: grpc.aio.Channel) -> None:
    signer = Signer(channel, remembered=60.0)
    pairs = await asyncio.gather(*(signer.pair("launch-key") for _ in range(40)))
    assert {pair.public_data for pair in pairs} == {asyncssh.import_public_key(PUBLIC).public_data}
    await signer.check("launch-key")
    assert keys.asked == 1


async def test_what_is_not_remembered_is_asked_again(keys: Keys, channel: grpc.aio.Channel) -> None:
    signer = Signer(channel, remembered=0.0)
    await signer.check("launch-key")
    keys.is_there = False
    with pytest.raises(grpc.aio.AioRpcError):
        await signer.check("launch-key")
    assert keys.asked == 2


async def test_who_leaves_takes_nobody_s_answer_along(keys: Keys, channel: grpc.aio.Channel) -> None:
    signer = Signer(channel, remembered=60.0)
    first, second = (asyncio.ensure_future(signer.check("launch-key")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert (first.cancelled(), keys.asked) == (True, 1)
