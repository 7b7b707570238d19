"""Databases of a whole installation: one for each service."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.peers.postgres import Server

SERVICES = ("keys", "agent_gateway", "executor", "launcher")


@contextmanager
def of_every_service(server: Server) -> Iterator[dict[str, str]]:
    """A fresh database for each service: the variables that name them."""
    with ExitStack() as stack:
        yield {
            f"TWINLINE_{service.upper()}_DATABASE_URL": stack.enter_context(server.database()) for service in SERVICES
        }


@contextmanager
def in_the_environment(kind: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """What is started within the block keeps its data in `kind`: `sqlite` (as by default) or `postgresql`."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for service in SERVICES:
            patch.delenv(f"TWINLINE_{service.upper()}_DATABASE_URL", raising=False)
        if kind == "postgresql":
            server: Server = request.getfixturevalue("postgres_server")
            for name, url in stack.enter_context(of_every_service(server)).items():
                patch.setenv(name, url)
        yield
