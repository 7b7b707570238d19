"""A service as a process: its gRPC services with the work beside them, from settings to SIGTERM."""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from twinline_kit import logs, process, telemetry
from twinline_kit.auth import TokenVerifier
from twinline_kit.errors import Error
from twinline_kit.loops import Background
from twinline_kit.server import Service, serving
from twinline_kit.settings import ServiceSettings


@dataclass(frozen=True)
class App:
    """What a service package's `build` makes: its gRPC services, who checks tokens, and its background work."""

    services: Sequence[Service]
    verifier: TokenVerifier
    background: Sequence[Background] = field(default=())


S = TypeVar("S", bound=ServiceSettings)


def run_app(settings: type[S], build: Callable[[S], AbstractAsyncContextManager[App]]) -> None:
    """All that a service's `__main__` does: settings, logs, telemetry, loop, `build`, serve until a stop signal.

    What cannot start says why on standard error and exits with status 1.
    """
    process.use_uvloop_if_there()
    process.allow_many_files()
    logs.setup(settings.service_name())
    telemetry.start(settings.service_name())
    try:
        asyncio.run(_serve(settings.read(), build))
    except Error as error:
        sys.exit(f"twinline {settings.service_name()}: {error.message} ({error.reason})")
    finally:
        telemetry.stop()


async def _serve(settings: S, build: Callable[[S], AbstractAsyncContextManager[App]]) -> None:
    """Build, serve, and do the background work until SIGTERM, SIGINT or SIGHUP."""
    with stop_signals() as stopped:
        async with (
            build(settings) as app,
            serving(
                settings.listen(), app.services, app.background, identity=settings.identity(), verifier=app.verifier
            ),
        ):
            process.spare_the_collector()
            await stopped.wait()


@contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """An event that the first SIGTERM, SIGINT or SIGHUP sets; the second one does what it does by default.

    A SIGHUP that is ignored, as below nohup, stays so.
    """
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)

    def release() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)

    def stop() -> None:
        stopped.set()
        release()

    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield stopped
    finally:
        release()
