"""`twinline up`: every service in one process, with real calls between them over the process's own ports."""

import asyncio
import logging
import shlex
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

import twinline_agent_gateway.app
import twinline_executor.app
import twinline_keys.app
import twinline_launcher.app
from twinline_cli import home as client_home
from twinline_cli.errors import say
from twinline_cli.standard_streams import OutputUnwritable
from twinline_cli.terminal import BOLD, colour
from twinline_kit import logs, process, telemetry
from twinline_kit.app import App, stop_signals
from twinline_kit.server import Bound, Listen, PortInUse, serving
from twinline_kit.tls import Identity
from twinline_suite import search_path, settings
from twinline_suite.example_files import shown_folder
from twinline_suite.home import HOST, Home, HomeInUse, Ports, opened

log = logging.getLogger(__name__)

TOUR = (
    "twinline doctor",
    "twinline apply -f {examples}/catalog.yaml -f {examples}/site.yaml",
    "twinline servers preflight web-1",
    "twinline servers launch web-1 web-2 --wait",
    "twinline run greet-visitor --on 'tag:role=web' --input VISITOR=text:you",
    "twinline run -c 'uname -a' --on 'generation:v5'",
    "twinline runs list",
    "twinline servers terminate web-1 web-2 --wait",
)
"""What there is to try first. The README has the same."""

_LOG_BYTES = 20 << 20
_LOG_FILES = 4
_GRACE = 2.0
_PROBE = 2.0


def run(folder: Path, port: int | None, mesh_port: int | None) -> None:
    """Run the suite on `folder` until SIGTERM, SIGINT or SIGHUP."""
    process.use_uvloop_if_there()
    process.allow_many_files()
    with opened(folder) as home, _logging(home):
        telemetry.start("suite")
        try:
            asyncio.run(_serve(home, port, mesh_port))
        finally:
            telemetry.stop()


async def _serve(home: Home, port: int | None, mesh_port: int | None) -> None:
    home.issue_certificates()
    kept, ports = home.kept_ports(), home.ports(port, mesh_port)
    if kept:
        _refuse_a_second(home, kept)
    listen = Listen(f"{HOST}:{ports.api}", f"{HOST}:{ports.mesh}")
    identity = Identity.load(home.certificate(), home.key(), home.authority / "ca.pem")
    with stop_signals() as stopped:
        async with AsyncExitStack() as stack:
            apps = await _build(stack, home, listen)
            services = [service for app in apps for service in app.services]
            background = [work for app in apps for work in app.background]
            with _naming_the_option(listen):
                bound = await stack.enter_async_context(
                    serving(listen, services, background, identity=identity, verifier=apps[0].verifier, grace=_GRACE)
                )
            home.keep_ports(ports)
            home.publish(bound)
            _say(_summary(home, bound))
            if kept and kept.mesh != ports.mesh:
                say(
                    f"agents launched before know port {kept.mesh} and do not find {ports.mesh}: launch them again, or "
                    f"start with --mesh-port {kept.mesh}"
                )
            process.spare_the_collector()
            log.info("up", extra={"home": str(home.folder)})
            await stopped.wait()
            with suppress(OSError, OutputUnwritable):  # the terminal may be what went away
                _say("stopping; servers of the local cloud go on, and are found again at the next start\n")


def _refuse_a_second(home: Home, kept: Ports) -> None:
    """HomeInUse when a service of this home runs by itself: another one would write to the same SQLite files."""
    trusted = ssl.create_default_context(cafile=home.authority / "ca.pem")
    for port in (kept.api, kept.mesh):
        with suppress(OSError):  # nobody is there, or somebody whom another authority vouches for
            with socket.create_connection((HOST, port), timeout=_PROBE) as connection:
                trusted.wrap_socket(connection, server_hostname=HOST).close()
            text = f"services run by themselves on {home.folder}, one at {HOST}:{port}; stop them"
            raise HomeInUse(f"{text}, or choose another home with --home", folder=str(home.folder))


@contextmanager
def _naming_the_option(listen: Listen) -> Iterator[None]:
    """Within the block, a port that is taken is told with the option that chooses another."""
    try:
        yield
    except PortInUse as error:
        address = error.metadata["address"]
        option = "--mesh-port" if address == listen.mesh else "--port"
        raise PortInUse(f"{error.message} with {option}", address=address) from None


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
    # What this terminal's environment says of the home, the next one's need not.
    is_found = home.folder == client_home.default_folder().absolute()
    first = [] if is_found else [f"export {client_home.VARIABLE}={shlex.quote(str(home.folder))}"]
    commands = [*search_path.export(), *first, *(command.format(examples=examples) for command in TOUR)]
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
