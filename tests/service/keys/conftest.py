"""A keys service on each kind of database, and its stubs for those who call it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias

import pytest
from google.protobuf.descriptor import FileDescriptor

from tests.peers.authority import Certificates
from tests.peers.keys import running_keys
from tests.peers.serving import Served
from twinline.keys.v1 import (
    certificates_pb2,
    certificates_pb2_grpc,
    cloud_keys_pb2,
    cloud_keys_pb2_grpc,
    credentials_pb2,
    credentials_pb2_grpc,
    people_pb2,
)

FILES: tuple[FileDescriptor, ...] = (
    certificates_pb2.DESCRIPTOR,
    cloud_keys_pb2.DESCRIPTOR,
    credentials_pb2.DESCRIPTOR,
    people_pb2.DESCRIPTOR,
)
"""All that this service promises."""

# Such types are there for type checkers only.
CloudKeys: TypeAlias = "cloud_keys_pb2_grpc.CloudKeyServiceAsyncStub"
Credentials: TypeAlias = "credentials_pb2_grpc.CredentialServiceAsyncStub"
Certs: TypeAlias = "certificates_pb2_grpc.CertificateServiceAsyncStub"


@pytest.fixture
async def keys(authority: Certificates, tmp_path: Path, database_url: str) -> AsyncIterator[Served]:
    """The service, on each kind of database in turn."""
    async with running_keys(authority, tmp_path / "keys", database_url) as served:
        yield served


@pytest.fixture
def admin(keys: Served) -> CloudKeys:
    """Cloud keys, as an admin."""
    return cloud_keys_pb2_grpc.CloudKeyServiceStub(keys.as_person("admin"))


@pytest.fixture
def executor(keys: Served) -> CloudKeys:
    """Cloud keys, as the executor."""
    return cloud_keys_pb2_grpc.CloudKeyServiceStub(keys.as_service("executor"))


@pytest.fixture
def credentials(keys: Served) -> Credentials:
    """Credentials, as an admin."""
    return credentials_pb2_grpc.CredentialServiceStub(keys.as_person("admin"))


@pytest.fixture
def opener(keys: Served) -> Credentials:
    """Credentials, as the executor."""
    return credentials_pb2_grpc.CredentialServiceStub(keys.as_service("executor"))


@pytest.fixture
def certificates(keys: Served) -> Certs:
    """Certificates, as the gateway."""
    return certificates_pb2_grpc.CertificateServiceStub(keys.as_service("agent_gateway"))
