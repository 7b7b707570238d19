"""The RPCs: check, act, answer."""

from asyncio import to_thread
from datetime import datetime, timedelta
from typing import Any

import grpc.aio
from cryptography import x509
from google.protobuf.empty_pb2 import Empty

from twinline.keys.v1 import (
    certificates_pb2,
    certificates_pb2_grpc,
    cloud_keys_pb2,
    cloud_keys_pb2_grpc,
    credentials_pb2,
    credentials_pb2_grpc,
    people_pb2,
    people_pb2_grpc,
)
from twinline_keys import convert, names
from twinline_keys.audit import audited
from twinline_keys.errors import KeyMalformed, KeyMaterialMissing
from twinline_keys.material import PrivateHalf, canonical, parse_public
from twinline_keys.models import CloudKey, Credential
from twinline_keys.sealing import Sealer
from twinline_keys.store import CloudKeyStore, CredentialStore
from twinline_kit import ids, pages
from twinline_kit.auth import TokenVerifier, caller
from twinline_kit.clock import Clock
from twinline_kit.errors import InvalidArgument
from twinline_kit.times import timestamp
from twinline_kit.tls import Authority, agent_uri

Context = grpc.aio.ServicerContext[Any, Any]

CLOUD_KEY, CREDENTIAL = "cloud-key", "credential"
LARGEST_SIGNED = 64 * 1024
LARGEST_VALUE = 64 * 1024
MOST_OPENED = 1000
USUAL_LIFETIME, LONGEST_LIFETIME = timedelta(hours=24), timedelta(days=30)


class CloudKeyService(cloud_keys_pb2_grpc.CloudKeyServiceServicer):
    """Cloud keys. Private halves are opened in here, for one signature at a time, and never answered."""

    def __init__(self, store: CloudKeyStore, sealer: Sealer, clock: Clock) -> None:
        self._store = store
        self._sealer = sealer
        self._clock = clock

    async def CreateCloudKey(
        self, request: cloud_keys_pb2.CreateCloudKeyRequest, context: Context
    ) -> cloud_keys_pb2.CloudKey:
        with audited("create cloud key", key=request.name):
            name, request_id = names.key_name(request.name), ids.request_id(request.request_id)
            row = await to_thread(self._generate, name, request_id)
            return convert.cloud_key(_same_request(row, name))

    async def ImportCloudKey(
        self, request: cloud_keys_pb2.ImportCloudKeyRequest, context: Context
    ) -> cloud_keys_pb2.CloudKey:
        with audited("import cloud key", key=request.name):
            name, request_id = names.key_name(request.name), ids.request_id(request.request_id)
            row = await to_thread(self._register, name, request_id, request.public_key, request.fingerprint)
            return convert.cloud_key(_same_request(row, name))

    async def UploadCloudKeyMaterial(
        self, request: cloud_keys_pb2.UploadCloudKeyMaterialRequest, context: Context
    ) -> cloud_keys_pb2.CloudKey:
        with audited("upload cloud key material", key=request.key):
            row = await to_thread(self._store.get, names.key_reference(request.key))
            row = await to_thread(self._complete, row, request.private_key, request.passphrase)
            return convert.cloud_key(row)

    async def GetCloudKey(
        self, request: cloud_keys_pb2.GetCloudKeyRequest, context: Context
    ) -> cloud_keys_pb2.CloudKey:
        return convert.cloud_key(await to_thread(self._store.get, names.key_reference(request.key)))

    async def ListCloudKeys(
        self, request: cloud_keys_pb2.ListCloudKeysRequest, context: Context
    ) -> cloud_keys_pb2.ListCloudKeysResponse:
        size = pages.page_size(request.page_size)
        rows = await to_thread(self._store.page, after=pages.after(request.page_token), limit=size + 1)
        page, following = pages.slice(rows, size, lambda row: row.name)
        return cloud_keys_pb2.ListCloudKeysResponse(cloud_keys=map(convert.cloud_key, page), next_page_token=following)

    async def DeleteCloudKey(self, request: cloud_keys_pb2.DeleteCloudKeyRequest, context: Context) -> Empty:
        with audited("delete cloud key", key=request.key):
            await to_thread(self._store.delete, names.key_reference(request.key))
            return Empty()

    async def Sign(self, request: cloud_keys_pb2.SignRequest, context: Context) -> cloud_keys_pb2.SignResponse:
        with audited("sign", key=request.key, algorithm=request.algorithm):
            if not 0 < len(request.data) <= LARGEST_SIGNED:
                raise InvalidArgument(f"data must be 1 to {LARGEST_SIGNED} bytes", field="data")
            signature = await to_thread(self._sign, names.key_reference(request.key), request.data, request.algorithm)
            return cloud_keys_pb2.SignResponse(signature=signature)

    def _generate(self, name: str, request_id: str | None) -> CloudKey:
        if first := self._store.made_by(request_id):
            return first
        private, key_id, at = PrivateHalf.generate(), ids.new_id("key"), self._clock()
        row = CloudKey(
            id=key_id,
            name=name,
            public_key=private.public.line,
            fingerprint=private.public.fingerprint,
            sealed=self._sealer.seal(CLOUD_KEY, key_id, private.dump()),
            create_time=at,
            material_time=at,
            request_id=request_id,
        )
        return self._store.insert(row)

    def _register(self, name: str, request_id: str | None, public_key: str, fingerprint: str) -> CloudKey:
        public_key, fingerprint = _registered(public_key.strip(), fingerprint.strip())
        row = CloudKey(
            id=ids.new_id("key"),
            name=name,
            public_key=public_key,
            fingerprint=fingerprint,
            create_time=self._clock(),
            request_id=request_id,
        )
        return self._store.insert(row)

    def _complete(self, row: CloudKey, data: bytes, passphrase: str) -> CloudKey:
        private = PrivateHalf.parse(data, passphrase)
        private.must_be(row.name, row.fingerprint)
        if row.sealed is not None:
            return row
        return self._store.add_material(
            row.id,
            public_key=private.public.line,
            fingerprint=private.public.fingerprint,
            sealed=self._sealer.seal(CLOUD_KEY, row.id, private.dump()),
            at=self._clock(),
        )

    def _sign(self, key: str, data: bytes, algorithm: str) -> bytes:
        row = self._store.get(key)
        if row.sealed is None:
            raise KeyMaterialMissing(
                f"the private half of {row.name} is not here: upload its key material", key=row.name
            )
        return PrivateHalf.load(self._sealer.open(CLOUD_KEY, row.id, row.sealed)).sign(data, algorithm)


class CredentialService(credentials_pb2_grpc.CredentialServiceServicer):
    """Credentials. Values leave only for the executor."""

    def __init__(self, store: CredentialStore, sealer: Sealer, clock: Clock) -> None:
        self._store = store
        self._sealer = sealer
        self._clock = clock

    async def SetCredential(
        self, request: credentials_pb2.SetCredentialRequest, context: Context
    ) -> credentials_pb2.Credential:
        with audited("set credential", credential=request.name):
            name = names.credential_name(request.name)
            if not 0 < len(request.value) <= LARGEST_VALUE:
                raise InvalidArgument(f"value of a credential must be 1 to {LARGEST_VALUE} bytes", field="value")
            sealed = self._sealer.seal(CREDENTIAL, name, request.value)
            row = Credential(name=name, sealed=sealed, update_time=self._clock())
            return convert.credential(await to_thread(self._store.put, row))

    async def ListCredentials(
        self, request: credentials_pb2.ListCredentialsRequest, context: Context
    ) -> credentials_pb2.ListCredentialsResponse:
        size = pages.page_size(request.page_size)
        rows = await to_thread(self._store.page, after=pages.after(request.page_token), limit=size + 1)
        page, following = pages.slice(rows, size, lambda row: row.name)
        return credentials_pb2.ListCredentialsResponse(
            credentials=map(convert.credential, page), next_page_token=following
        )

    async def DeleteCredential(self, request: credentials_pb2.DeleteCredentialRequest, context: Context) -> Empty:
        with audited("delete credential", credential=request.name):
            await to_thread(self._store.delete, names.credential_name(request.name))
            return Empty()

    async def OpenCredentials(
        self, request: credentials_pb2.OpenCredentialsRequest, context: Context
    ) -> credentials_pb2.OpenCredentialsResponse:
        with audited("open credentials", credentials=" ".join(request.names)):
            if len(request.names) > MOST_OPENED:
                raise InvalidArgument(f"names are more than {MOST_OPENED}: ask in several calls", field="names")
            wanted = [names.credential_name(name) for name in request.names]
            return await to_thread(self._open, wanted)

    def _open(self, wanted: list[str]) -> credentials_pb2.OpenCredentialsResponse:
        rows = self._store.named(wanted)
        return credentials_pb2.OpenCredentialsResponse(
            values={row.name: self._sealer.open(CREDENTIAL, row.name, row.sealed) for row in rows},
            update_times={row.name: timestamp(row.update_time) for row in rows},
        )


class PeopleService(people_pb2_grpc.PeopleServiceServicer):
    """Tells other services, and people themselves, whose token it is."""

    def __init__(self, tokens: TokenVerifier) -> None:
        self._tokens = tokens

    async def Authenticate(self, request: people_pb2.AuthenticateRequest, context: Context) -> people_pb2.Person:
        return convert.person(await self._tokens.verify(request.token))

    async def WhoAmI(self, request: people_pb2.WhoAmIRequest, context: Context) -> people_pb2.Person:
        return convert.person(caller())


class CertificateService(certificates_pb2_grpc.CertificateServiceServicer):
    """Signs certificates with the suite's authority."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    async def SignAgentCertificate(
        self, request: certificates_pb2.SignAgentCertificateRequest, context: Context
    ) -> certificates_pb2.SignAgentCertificateResponse:
        with audited("sign agent certificate", agent=request.agent_id):
            uri, lifetime = agent_uri(names.agent_id(request.agent_id)), _lifetime(request)
            pem = await to_thread(self._authority.sign, request.certificate_request, uri=uri, lifetime=lifetime)
            return certificates_pb2.SignAgentCertificateResponse(certificate=pem, expire_time=timestamp(_expiry(pem)))


def _registered(public_key: str, fingerprint: str) -> tuple[str, str]:
    """What is stored of a key whose private half is elsewhere: its public line and its fingerprint."""
    if not public_key and not fingerprint:
        raise InvalidArgument("public_key and fingerprint are both empty: give one of them", field="public_key")
    wanted = canonical(fingerprint) if fingerprint else ""
    if not public_key:
        return "", fingerprint
    public = parse_public(public_key)
    if wanted and not public.may_have(wanted):
        raise KeyMalformed(
            f"the fingerprint {fingerprint} is not that of the public key ({public.fingerprint}): give either alone",
            fingerprint=fingerprint,
            given=public.fingerprint,
        )
    return public.line, public.fingerprint


def _same_request(row: CloudKey, name: str) -> CloudKey:
    """`row`, unless its request_id was used before for something else."""
    if row.name != name:
        raise InvalidArgument(f"request_id was used before, for key {row.name}: make a new one", field="request_id")
    return row


def _lifetime(request: certificates_pb2.SignAgentCertificateRequest) -> timedelta:
    if not request.HasField("lifetime"):
        return USUAL_LIFETIME
    lifetime = request.lifetime.ToTimedelta()
    if not timedelta() < lifetime <= LONGEST_LIFETIME:
        raise InvalidArgument(
            f"lifetime must be more than nothing and at most {LONGEST_LIFETIME.days} days", field="lifetime"
        )
    return lifetime


def _expiry(pem: bytes) -> datetime:
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc
