"""Open SSH connections, kept for a while and shared: a channel costs 1.5 ms, a connection 40."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import asyncssh

from twinline_executor.reasons import TaskReason
from twinline_executor.ssh_login import Endpoint, LineDown, host_key_line
from twinline_journal import forget_command

log = logging.getLogger(__name__)

CHANNELS = 8
"""Of one connection at once; OpenSSH allows 10 unless told otherwise."""
LOOK_EVERY = 5.0
FORGET_AFTER = 30.0
"""Seconds that a host is not told what it may forget: by then it may be more, and telling costs it a session."""
FORGET_AT_ONCE = 500
COMMAND_TIMEOUT = 30.0
PARTING = 2.0
"""Seconds for the last message on a connection that is given up."""

Dial = Callable[[Endpoint], Awaitable[asyncssh.SSHClientConnection]]
Admit = Callable[[Endpoint], Awaitable[None]]
Address = tuple[str, int, str, str]


class PooledConnection:
    """An open connection, how many use it, and what its host may forget."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self.connection = connection
        key = connection.get_server_host_key()
        self.host_key = host_key_line(key) if key is not None else ""
        self.users = 0
        self.idle_since = time.monotonic()
        self.retired = False
        """Whether it takes no new work, and is closed when nobody uses it any more."""
        self._forgettable: list[str] = []
        self._forgettable_since = 0.0

    def serves(self, endpoint: Endpoint) -> bool:
        """Whether it is open, to the host that this endpoint pins."""
        same_host = not endpoint.host_key or endpoint.host_key.split()[:2] == self.host_key.split()
        return same_host and not self.connection.is_closed()

    def has_room(self) -> bool:
        """Whether one more channel may be opened."""
        return self.users < CHANNELS

    def forget(self, task_id: str) -> None:
        """All of this task is stored; its host shall drop it with the next message that is due."""
        if not self._forgettable:
            self._forgettable_since = time.monotonic()
        self._forgettable.append(task_id)

    def has_been_idle(self, seconds: float) -> bool:
        """Whether nobody has used it for so long."""
        return not self.users and time.monotonic() - self.idle_since > seconds

    def shall_forget(self) -> bool:
        """Whether the host should be told by now."""
        waited = bool(self._forgettable) and time.monotonic() - self._forgettable_since > FORGET_AFTER
        return waited or len(self._forgettable) >= FORGET_AT_ONCE

    async def flush(self) -> None:
        """Tell the host what it may forget. It forgets by itself, only later, when this fails."""
        while self._forgettable and not self.connection.is_closed():
            ids, self._forgettable = self._forgettable[:FORGET_AT_ONCE], self._forgettable[FORGET_AT_ONCE:]
            try:
                await self.connection.run(forget_command(ids), check=False, timeout=COMMAND_TIMEOUT, encoding=None)
            except (OSError, asyncssh.Error, TimeoutError) as error:
                log.info("host was not told to forget", extra={"tasks": len(ids), "error": str(error)})


class Connections:
    """A bounded pool. `run` must run for connections to be opened and closed.

    `admit` is asked before an open connection takes new work, and raises LineDown when a new one would be refused.
    """

    def __init__(
        self, dial: Dial, admit: Admit, *, at_most: int, opening_at_most: int, idle: float, patience: float
    ) -> None:
        self._dial = dial
        self._admit = admit
        self._patience = patience
        self._at_most = at_most
        self._idle = idle
        self._opening = asyncio.Semaphore(opening_at_most)
        self._kept: dict[Address, list[PooledConnection]] = {}
        self._dialing: dict[tuple[Address, str], asyncio.Future[PooledConnection]] = {}
        self._count = 0
        self._freed = asyncio.Event()
        self._group = asyncio.TaskGroup()

    async def run(self) -> None:
        """Open and close connections until cancelled."""
        try:
            async with self._group:
                while True:
                    await asyncio.sleep(min(LOOK_EVERY, self._idle))
                    await self._tidy()
        finally:
            everyone = [kept for some in self._kept.values() for kept in some]
            try:
                await _say_goodbye(everyone)
            finally:
                for kept in everyone:
                    kept.connection.abort()

    @asynccontextmanager
    async def channel(self, endpoint: Endpoint, *, new_work: bool = True) -> AsyncIterator[PooledConnection]:
        """A connection with room for one more channel, opened when there is none. Raises LineDown.

        Without `new_work`, such as to follow or end what runs there, an open connection is taken and nobody is asked.
        """
        try:
            async with asyncio.timeout(self._patience):
                kept = await self._take(endpoint, new_work=new_work)
        except TimeoutError:
            message = f"this executor is busy: no turn to connect to {endpoint.host} within {self._patience:g} s"
            raise LineDown(TaskReason.CONNECTIONS_BUSY, message, passing=True) from None
        try:
            yield kept
        finally:
            self._give_back(kept)

    def _give_back(self, kept: PooledConnection) -> None:
        kept.users -= 1
        kept.idle_since = time.monotonic()
        if kept.retired and not kept.users:
            kept.connection.close()
        self._freed.set()

    async def _take(self, endpoint: Endpoint, *, new_work: bool) -> PooledConnection:
        while True:
            if kept := self._open_one(endpoint, new_work=new_work):
                kept.users += 1
                if new_work:
                    await self._admitted(endpoint, kept)
                return kept
            kept = await asyncio.shield(self._dialed(endpoint))
            if not kept.serves(endpoint):
                # Not dialled again from here: whoever wants the line pauses first, longer each time.
                message = f"{endpoint.host} port {endpoint.port} closed the connection right after the login"
                raise LineDown(TaskReason.CONNECTION_LOST, message, passing=True)
            if kept.has_room():
                kept.users += 1
                return kept

    def _open_one(self, endpoint: Endpoint, *, new_work: bool) -> PooledConnection | None:
        for kept in self._kept.get(endpoint.address, ()):
            if kept.serves(endpoint) and kept.has_room() and not (new_work and kept.retired):
                return kept
        return None

    async def _admitted(self, endpoint: Endpoint, kept: PooledConnection) -> None:
        """Return when `kept`, which counts us among its users, may be used. An open one outlives no refusal."""
        try:
            await self._admit(endpoint)
        except LineDown:
            self._retire(endpoint.address)
            self._give_back(kept)
            raise
        except BaseException:
            self._give_back(kept)
            raise

    def _retire(self, address: Address) -> None:
        for kept in self._kept.get(address, ()):
            kept.retired = True
            if not kept.users:
                kept.connection.close()

    def _dialed(self, endpoint: Endpoint) -> "asyncio.Future[PooledConnection]":
        """One attempt to connect, shared by all who wait for this address and pin the same host key."""
        attempt = self._dialing.get(_dial_key(endpoint))
        if attempt is None:
            attempt = asyncio.get_running_loop().create_future()
            self._dialing[_dial_key(endpoint)] = attempt
            self._group.create_task(self._open(endpoint, attempt))
        return attempt

    async def _open(self, endpoint: Endpoint, attempt: "asyncio.Future[PooledConnection]") -> None:
        try:
            await self._room()
            try:
                async with self._opening:
                    connection = await self._dial(endpoint)
            except BaseException:
                self._gone()
                raise
            kept = PooledConnection(connection)
            self._keep(endpoint, kept)
            attempt.set_result(kept)
        except LineDown as down:
            attempt.set_exception(down)
            attempt.exception()  # seen: those who waited may have gone
        except Exception as error:
            log.exception("connecting failed unexpectedly", extra={"host": endpoint.host, "port": endpoint.port})
            message = f"connecting failed for a reason that this executor does not know: {error!r}; its log has more"
            attempt.set_exception(LineDown(TaskReason.EXECUTOR_FAILED, message, passing=True))
            attempt.exception()
        finally:
            del self._dialing[_dial_key(endpoint)]
            attempt.cancel()

    def _keep(self, endpoint: Endpoint, kept: PooledConnection) -> None:
        self._kept.setdefault(endpoint.address, []).append(kept)
        self._group.create_task(self._until_closed(endpoint.address, kept))

    async def _until_closed(self, address: Address, kept: PooledConnection) -> None:
        await kept.connection.wait_closed()
        some = self._kept[address]
        some.remove(kept)
        if not some:
            del self._kept[address]
        self._gone()

    async def _room(self) -> None:
        while self._count >= self._at_most:
            self._freed.clear()
            idle = [kept for some in self._kept.values() for kept in some if not kept.users]
            if idle:
                await self._dismiss(min(idle, key=lambda kept: kept.idle_since))
            await self._freed.wait()
        self._count += 1

    async def _dismiss(self, kept: PooledConnection) -> None:
        """Close a connection that nobody uses, if nobody came back to it while it was told what to forget."""
        await _say_goodbye([kept])
        if kept.users:
            self._freed.set()
        else:
            kept.connection.close()

    def _gone(self) -> None:
        self._count -= 1
        self._freed.set()

    async def _tidy(self) -> None:
        everyone = [kept for some in self._kept.values() for kept in some]
        idle = [kept for kept in everyone if kept.has_been_idle(self._idle)]
        await asyncio.gather(*(kept.flush() for kept in {*idle, *filter(PooledConnection.shall_forget, everyone)}))
        for kept in idle:
            if kept.has_been_idle(self._idle):  # nobody came back to it while its host was told
                kept.connection.close()


def _dial_key(endpoint: Endpoint) -> tuple[Address, str]:
    """Whose dial may be shared: a stale pin must refuse its own target only."""
    return endpoint.address, endpoint.host_key


async def _say_goodbye(some: Sequence[PooledConnection]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(PARTING):
            await asyncio.gather(*(kept.flush() for kept in some))
