"""A stored secret reaches the script that names it, and no place where it could be read afterwards."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.peers.databases import SERVICES
from tests.peers.runs import Task, runs_of
from tests.suite.running import Suite

pytestmark = pytest.mark.timeout(180)

SECRET = b"correct-horse-battery-staple-0451"
PROOF = 'printf %s "$TOKEN" | sha256sum'


@pytest.fixture
def inputs(site: Suite) -> dict[str, str]:
    """What gives a script the secret."""
    site.good("credentials", "set", "token", stdin=SECRET)
    return {"TOKEN": "cred:token"}


async def test_it_is_nowhere_once_a_script_has_used_it(site: Suite, inputs: dict[str, str]) -> None:
    async with runs_of(site.home) as runs:
        for task in await runs.run(PROOF, "name:web-*", inputs):
            assert task.state == Task.STATE_SUCCEEDED
            assert await runs.output(task) == f"{hashlib.sha256(SECRET).hexdigest()}  -\n".encode()
    assert shown_in(site.home / "data", site.home / "logs") == []


async def test_it_is_masked_where_a_script_prints_it(site: Suite, inputs: dict[str, str]) -> None:
    async with runs_of(site.home) as runs:
        for task in await runs.run('echo "<$TOKEN>"; printf %s "$TOKEN" >&2', "name:web-*", inputs):
            stars = b"*" * len(SECRET)
            assert await runs.output(task) == b"<" + stars + b">\n" + stars
    # What a script prints is in the journal on its own host; here the hosts' disks are in the folder `cloud`.
    assert [file for file in shown_in(site.home) if (site.home / "data" / "cloud") not in file.parents] == []


def shown_in(*folders: Path) -> list[Path]:
    """Files that hold the secret, and databases that do, by their names."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert any(file.name == "machine.json" for file in files)
    databases = [Path(service) for service in SERVICES if any(SECRET in row for row in rows(service))]
    return [file for file in files if SECRET in file.read_bytes()] + databases


def rows(service: str) -> Iterator[bytes]:
    """All rows of a service's PostgreSQL database, bytes as they are."""
    url = os.environ.get(f"TWINLINE_{service.upper()}_DATABASE_URL", "").replace("+psycopg", "")
    if not url:
        return
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert tables
        for (table,) in tables:
            query = psycopg.sql.SQL("SELECT t.* FROM {} t").format(psycopg.sql.Identifier(table))
            for row in connection.execute(query):
                yield b"\0".join(bytes(v) if isinstance(v, bytes) else str(v).encode() for v in row)
