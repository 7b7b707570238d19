"""Puts the keys service together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import sqlalchemy as sa

from twinline.keys.v1 import certificates_pb2_grpc, cloud_keys_pb2_grpc, credentials_pb2_grpc, people_pb2_grpc
from twinline_keys import access, startup
from twinline_keys.people import StoredTokens
from twinline_keys.sealing import Sealer
from twinline_keys.service.certificates import CertificateService
from twinline_keys.service.cloud_keys import CloudKeyService
from twinline_keys.service.credentials import CredentialService
from twinline_keys.service.people import PeopleService
from twinline_keys.settings import Settings
from twinline_keys.store import CloudKeyStore, CredentialStore, PeopleStore, SealStore
from twinline_kit import clock, db
from twinline_kit.app import App
from twinline_kit.server import Service
from twinline_kit.tls import Authority


@asynccontextmanager
async def build(settings: Settings) -> AsyncIterator[App]:
    """Yield the service, ready to register. Main, suite and tests all start here.

    Raises what `startup` raises when the stored records and the key-encryption key do not go together.
    """
    engine = await asyncio.to_thread(db.open, settings.database_url)
    try:
        sealer = await asyncio.to_thread(_prepare, engine, settings)
        authority = Authority.load(settings.authority_folder)
        yield _app(engine, sealer, authority)
    finally:
        engine.dispose()


def _prepare(engine: sa.Engine, settings: Settings) -> Sealer:
    db.migrate(engine, "twinline_keys")
    sealer = startup.open_sealer(SealStore(engine), settings.kek_file)
    startup.ensure_people(PeopleStore(engine), settings.admin_token_file, settings.observer_token_file)
    return sealer


def _app(engine: sa.Engine, sealer: Sealer, authority: Authority) -> App:
    tokens = StoredTokens(PeopleStore(engine))
    cloud_keys = CloudKeyService(CloudKeyStore(engine), sealer, clock.now)
    credentials = CredentialService(CredentialStore(engine), sealer, clock.now)
    people, certificates = PeopleService(tokens), CertificateService(authority)
    services = [
        Service(
            "twinline.keys.v1.CloudKeyService",
            partial(cloud_keys_pb2_grpc.add_CloudKeyServiceServicer_to_server, cloud_keys),
            access.CLOUD_KEYS,
        ),
        Service(
            "twinline.keys.v1.CredentialService",
            partial(credentials_pb2_grpc.add_CredentialServiceServicer_to_server, credentials),
            access.CREDENTIALS,
        ),
        Service(
            "twinline.keys.v1.PeopleService",
            partial(people_pb2_grpc.add_PeopleServiceServicer_to_server, people),
            access.PEOPLE,
        ),
        Service(
            "twinline.keys.v1.CertificateService",
            partial(certificates_pb2_grpc.add_CertificateServiceServicer_to_server, certificates),
            access.CERTIFICATES,
        ),
    ]
    return App(services, tokens)
