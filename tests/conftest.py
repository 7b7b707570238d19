"""Fixtures that every test may ask for.

What they need is imported when they run, so that the tests of one member need no other member installed.
"""

import importlib.util
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.peers.authority import Certificates
    from tests.peers.postgres import Server
    from tests.peers.serving import Served

# Whoever runs the tests may ignore signals, as nohup does, or a shell for what it runs in the background. Every process
# that a test starts would inherit that; a signal with a handler is not inherited so.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

# Hundreds of agents are played within this process: as many files as it may have, where a login gives 1,024.
_, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))


# The tests of one member can be run without the suite; then nobody looks for what they leave behind.
_LOOKS = importlib.util.find_spec("twinline_suite") is not None


def pytest_sessionstart(session: pytest.Session) -> None:
    """Mark what the tests start."""
    if _LOOKS:
        from tests.peers import left_behind

        left_behind.mark()


@pytest.hookimpl(trylast=True)  # when the workers, if any, have ended
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the whole run when it leaves a process behind."""
    if _LOOKS and not hasattr(session.config, "workerinput"):
        from tests.peers import left_behind

        left_behind.check(session, session.config._tmp_path_factory._basetemp)  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> "Certificates":
    """The suite's certificate authority, made once for the session."""
    from tests.peers.authority import Certificates

    return Certificates(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator["Server"]:
    """A PostgreSQL server, started with the first test that needs one."""
    from tests.peers import postgres

    with postgres.running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database on each kind of server in turn."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield f"sqlite:///{tmp_path / 'twinline.db'}"
        else:
            server: Server = request.getfixturevalue("postgres_server")
            yield stack.enter_context(server.database())


@pytest.fixture
async def keys(authority: "Certificates", tmp_path: Path) -> AsyncIterator["Served"]:
    """A real keys service with the people `admin` and `observer`, for the services that ask it who calls."""
    from tests.peers.keys import running_keys

    async with running_keys(authority, tmp_path / "keys") as served:
        yield served
