"""A real keys service, for tests of everything that stands above it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.peers.authority import Certificates
from tests.peers.serving import Served, serve
from twinline_keys import app
from twinline_keys.settings import Settings


def keys_settings(certificates: Certificates, folder: Path, database_url: str = "") -> Settings:
    """Settings of a keys service that keeps everything in `folder`."""
    return Settings(
        **certificates.settings("keys", folder),
        database_url=database_url or f"sqlite:///{folder / 'keys.db'}",
        kek_file=folder / "kek",
        authority_folder=certificates.folder,
        admin_token_file=folder / "admin.token",
        observer_token_file=folder / "observer.token",
    )


@asynccontextmanager
async def running_keys(certificates: Certificates, folder: Path, database_url: str = "") -> AsyncIterator[Served]:
    """Run keys with its first two people, `admin` and `observer`."""
    settings = keys_settings(certificates, folder, database_url)
    people: dict[str, str] = {}
    async with serve(app.build, settings, certificates=certificates, people=people) as served:
        for person in ("admin", "observer"):
            people[person] = (folder / f"{person}.token").read_text().strip()
        yield served
