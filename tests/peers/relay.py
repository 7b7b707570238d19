"""A TCP relay that forwards, cuts and stalls."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CHUNK = 64 * 1024


class Relay:
    """Forwards connections to a port on loopback. Byte counts are of what came back from there."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._cut_after: int | None = None
        self.connections = 0
        """Made through to the other side so far: one that is counted can be cut."""
        self.returned = 0
        """Bytes that came back so far."""

    @property
    def port(self) -> int:
        """Where to connect to."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> int:
        """Reset every connection, in both directions at once; answer how many there were."""
        writers, self._open = self._open, set()
        for writer in writers:
            writer.transport.abort()
        return len(writers)

    def cut_after(self, count: int) -> None:
        """Cut once, when `count` more bytes have come back."""
        self._cut_after = self.returned + count

    def stall(self) -> None:
        """Keep connections open and forward nothing."""
        self._flowing.clear()

    def flow(self) -> None:
        """Forward again."""
        self._flowing.set()

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        self.cut()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, far_writer}
        self.connections += 1
        for pump in (self._pump(reader, far_writer, back=False), self._pump(far_reader, writer, back=True)):
            task = asyncio.ensure_future(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
                if back:
                    self._count(len(data))
        writer.close()

    def _count(self, size: int) -> None:
        self.returned += size
        if self._cut_after is not None and self.returned >= self._cut_after:
            self._cut_after = None
            self.cut()


@asynccontextmanager
async def running_relay(target_port: int) -> AsyncIterator[Relay]:
    """A relay to that port for the block."""
    relay = Relay(target_port)
    await relay.start()
    try:
        yield relay
    finally:
        await relay.stop()
