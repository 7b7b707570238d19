"""`twinline up`: every service in one process, with real calls between them over the process's own ports."""

import asyncio
import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

import twinline_agent_gateway.app
import twinline_executor.app
import twinline_keys.app
import twinline_launcher.app
from twinline_cli import home as client_home
from twinline_cli.terminal import BOLD, colour
from twinline_kit import logs, process, telemetry
from twinline_kit.app import App, stop_signals
from twinline_kit.server import Bound, Listen, PortInUse, serving
from twinline_kit.tls import Identity
from twinline_suite import search_path, settings
from twinline_suite.example_files import shown_folder
from twinline_suite.home import HOST, Home, opened

log = logging.getLogger(__name__)

_LOG_BYTES = 20 << 20
_LOG_FILES = 4
_GRACE = 2.0


def run(folder: Path, port: int | None, mesh_port: int | None) -> None:
    """Run the suite on `folder` until SIGTERM or SIGINT."""
    process.use_uvloop_if_there()
    process.allow_many_files()
    with opened(folder) as home, _logging(home):
        telemetry.start("suite")
        try:
            asyncio.run(_serve(home, port, mesh_port))
        except PortInUse as error:
            address = error.metadata["address"]
            option = "--mesh-port" if mesh_port is not None and address.endswith(f":{mesh_port}") else "--port"
            raise PortInUse(f"{error.message} with {option}", address=address) from None
        finally:
            telemetry.stop()


async def _serve(home: Home, port: int | None, mesh_port: int | None) -> None:
    home.issue_certificates()
    ports = home.ports(port, mesh_port)
    listen = Listen(f"{HOST}:{ports.api}", f"{HOST}:{ports.mesh}")
    identity = Identity.load(home.certificate(), home.key(), home.authority / "ca.pem")
    with stop_signals() as stopped:
        async with AsyncExitStack() as stack:
            apps = await _build(stack, home, listen)
            services = [service for app in apps for service in app.services]
            background = [work for app in apps for work in app.background]
            bound = await stack.enter_async_context(
                serving(listen, services, background, identity=identity, verifier=apps[0].verifier, grace=_GRACE)
            )
            home.keep_ports(ports)
            home.publish(bound)
            _say(_summary(home, bound))
            process.spare_the_collector()
            log.info("up", extra={"home": str(home.folder)})
            await stopped.wait()
            _say("stopping; servers of the local cloud go on, and are found again at the next start\n")


async def _build(stack: AsyncExitStack, home: Home, listen: Listen) -> list[App]:
    """Build every service; keys first, because it knows whose token is whose."""
    return [
        await stack.enter_async_context(twinline_keys.app.build(settings.keys(home, listen))),
        await stack.enter_async_context(twinline_agent_gateway.app.build(settings.agent_gateway(home, listen))),
        await stack.enter_async_context(twinline_executor.app.build(settings.executor(home, listen))),
        await stack.enter_async_context(twinline_launcher.app.build(settings.launcher(home, listen))),
    ]


@contextmanager
def _logging(home: Home) -> Iterator[None]:
    """All logs go to the home's log file as JSON lines, in a few files of bounded size."""
    logs.setup("suite")
    handler = RotatingFileHandler(home.log, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, encoding="utf-8")
    handler.setFormatter(logs.JsonFormatter("suite"))
    logging.getLogger().handlers[:] = [handler]
    try:
        yield
    finally:
        logging.getLogger().handlers.clear()
        handler.close()


def _summary(home: Home, bound: Bound) -> str:
    examples = shown_folder()
    is_found = home.folder == client_home.folder().absolute()
    first = [] if is_found else [f"export {client_home.VARIABLE}={shlex.quote(str(home.folder))}"]
    commands = [
        *search_path.export(),
        *first,
        "twinline doctor",
        f"twinline apply -f {examples}/catalog.yaml -f {examples}/site.yaml",
        "twinline servers launch web-1 web-2 --wait",
        "twinline run greet-visitor --on deployment:site --input VISITOR=text:you",
    ]
    return "\n".join(
        [
            f"{colour('Twinline is up.', BOLD)} Ctrl-C stops it; servers of the local cloud go on meanwhile.",
            "",
            f"  API    {bound.api:<18} for people and their programs",
            f"  mesh   {bound.mesh:<18} for services and agents, with certificates",
            f"  home   {home.folder}",
            f"  log    {home.log}",
            "",
            "In another terminal:",
            "",
            *(f"  {command}" for command in commands),
            "",
            "",
        ]
    )


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
