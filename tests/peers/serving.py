"""Any service of the suite on real ports, and channels to it for any caller."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import grpc.aio

from tests.peers.authority import Certificates
from twinline_kit.app import App
from twinline_kit.client import api_channel, mesh_channel
from twinline_kit.server import Bound, serving
from twinline_kit.settings import ServiceSettings

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)
Build = Callable[[SettingsT], AbstractAsyncContextManager[App]]


@dataclass
class Served:
    """A running service. Channels are closed with it."""

    bound: Bound
    certificates: Certificates
    people: Mapping[str, str]
    """Token by person, as the keys service of this test knows them."""
    _channels: list[grpc.aio.Channel] = field(default_factory=list)

    def as_service(self, name: str) -> grpc.aio.Channel:
        """A mesh channel on which the caller is the service `name`."""
        return self._kept(mesh_channel(self.bound.mesh, self.certificates.service(name)))

    def as_agent(self, agent_id: str) -> grpc.aio.Channel:
        """A mesh channel on which the caller is the agent `agent_id`."""
        return self._kept(mesh_channel(self.bound.mesh, self.certificates.agent(agent_id)))

    def as_person(self, name: str) -> grpc.aio.Channel:
        """An API channel with the token of the person `name` (`admin`, `observer`)."""
        return self.with_token(self.people[name])

    def with_token(self, token: str | None) -> grpc.aio.Channel:
        """An API channel with any token, or none."""
        return self._kept(api_channel(self.bound.api, self.certificates.ca, token))

    def _kept(self, channel: grpc.aio.Channel) -> grpc.aio.Channel:
        self._channels.append(channel)
        return channel

    async def _close(self) -> None:
        for channel in self._channels:
            await channel.close()


@asynccontextmanager
async def serve(
    build: Build[SettingsT], settings: SettingsT, *, certificates: Certificates, people: Mapping[str, str] | None = None
) -> AsyncIterator[Served]:
    """Start what `build` makes of `settings`, with its background work, until the block ends."""
    async with (
        build(settings) as app,
        serving(
            settings.listen(), app.services, app.background, identity=settings.identity(), verifier=app.verifier
        ) as bound,
    ):
        served = Served(bound, certificates, {} if people is None else people)
        try:
            yield served
        finally:
            await served._close()
