"""Follows servers, tells about each state they come to, and waits for those that matter."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress

import grpc.aio

from twinline.launcher.v1 import servers_pb2 as pb
from twinline.launcher.v1 import servers_pb2_grpc as rpc
from twinline_cli.server_view import state, stranding
from twinline_kit.errors import Error
from twinline_suite.demo.failure import DemoFailed

Told = Callable[[str, pb.Transition], None]


class Watcher:
    """What is known of the servers right now."""

    def __init__(self, told: Told) -> None:
        self.latest: dict[str, pb.Server] = {}
        self._told = told
        self._changed = asyncio.Condition()
        self._lost: Error | None = None

    async def follow(self, channel: grpc.aio.Channel, servers: Collection[str]) -> None:
        """Follow `servers` until cancelled or cut."""
        try:
            async for change in rpc.ServerServiceStub(channel).WatchServers(
                pb.WatchServersRequest(servers=list(servers))
            ):
                self.note(change.server)
                for step in change.transitions:
                    self._told(change.server.name, step)
                async with self._changed:
                    self._changed.notify_all()
        except Error as error:
            self._lost = error
            async with self._changed:
                self._changed.notify_all()

    def note(self, server: pb.Server) -> None:
        """Take in how a server is, unless something newer is known: answers and the stream may overtake each other."""
        known = self.latest.get(server.name)
        if known is None or _time(known) <= _time(server):
            self.latest[server.name] = server

    async def until(self, step: str, wanted: dict[str, "pb.ServerState.ValueType"], within: float) -> None:
        """Wait until every server of `wanted` is in its state. DemoFailed when one ends up elsewhere, or too late."""
        try:
            async with asyncio.timeout(within), self._changed:
                await self._changed.wait_for(lambda: self._is_so(step, wanted))
        except TimeoutError:
            states = ", ".join(f"{name} is {self._state(name)}" for name in wanted)
            raise DemoFailed(step, f"not so within {within:g} s: {states}") from None

    def _is_so(self, step: str, wanted: dict[str, "pb.ServerState.ValueType"]) -> bool:
        if self._lost is not None:
            raise DemoFailed(step, f"the suite cannot be followed any more: {self._lost.message}")
        for name, goal in wanted.items():
            server = self.latest.get(name)
            if server is not None and server.state != goal and not server.moving:
                raise DemoFailed(step, f"{name} is {state(server.state)}; {stranding(server) or server.current.cause}")
        return all(name in self.latest and self.latest[name].state == goal for name, goal in wanted.items())

    def _state(self, name: str) -> str:
        return state(self.latest[name].state) if name in self.latest else "not seen"


def _time(server: pb.Server) -> tuple[int, int]:
    return server.update_time.seconds, server.update_time.nanos


@asynccontextmanager
async def watching(channel: grpc.aio.Channel, servers: Collection[str], told: Told) -> AsyncIterator[Watcher]:
    """Follow `servers` within the block."""
    watcher = Watcher(told)
    following = asyncio.ensure_future(watcher.follow(channel, servers))
    try:
        yield watcher
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
