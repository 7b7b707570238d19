"""Cloud keys: made here or elsewhere, completed, and signed with."""

from asyncio import to_thread

from google.protobuf.empty_pb2 import Empty

from twinline.keys.v1 import cloud_keys_pb2 as pb
from twinline.keys.v1 import cloud_keys_pb2_grpc as rpc
from twinline_keys import convert, names
from twinline_keys.audit import audited
from twinline_keys.errors import KeyMalformed, KeyMaterialMissing
from twinline_keys.material import PrivateHalf, canonical, parse_public
from twinline_keys.models import CloudKey
from twinline_keys.sealing import Sealer
from twinline_keys.store import CloudKeyStore
from twinline_kit import ids, pages
from twinline_kit.clock import Clock
from twinline_kit.errors import InvalidArgument

CLOUD_KEY = "cloud-key"
LARGEST_SIGNED = 64 * 1024


class CloudKeyService(rpc.CloudKeyServiceServicer):
    """Cloud keys. Private halves are opened in here, for one signature at a time, and never answered."""

    def __init__(self, store: CloudKeyStore, sealer: Sealer, clock: Clock) -> None:
        self._store = store
        self._sealer = sealer
        self._clock = clock

    async def CreateCloudKey(self, request: pb.CreateCloudKeyRequest, context: object) -> pb.CloudKey:
        with audited("create cloud key", key=request.name):
            name, request_id = names.key_name(request.name), ids.request_id(request.request_id)
            row = await to_thread(self._generate, name, request_id)
            return convert.cloud_key(_same_request(row, name))

    async def ImportCloudKey(self, request: pb.ImportCloudKeyRequest, context: object) -> pb.CloudKey:
        with audited("import cloud key", key=request.name):
            name, request_id = names.key_name(request.name), ids.request_id(request.request_id)
            row = await to_thread(self._register, name, request_id, request.public_key, request.fingerprint)
            return convert.cloud_key(_same_request(row, name))

    async def UploadCloudKeyMaterial(self, request: pb.UploadCloudKeyMaterialRequest, context: object) -> pb.CloudKey:
        with audited("upload cloud key material", key=request.key):
            row = await to_thread(self._store.get, names.key_reference(request.key))
            row = await to_thread(self._complete, row, request.private_key, request.passphrase)
            return convert.cloud_key(row)

    async def GetCloudKey(self, request: pb.GetCloudKeyRequest, context: object) -> pb.CloudKey:
        return convert.cloud_key(await to_thread(self._store.get, names.key_reference(request.key)))

    async def ListCloudKeys(self, request: pb.ListCloudKeysRequest, context: object) -> pb.ListCloudKeysResponse:
        size = pages.page_size(request.page_size)
        rows = await to_thread(self._store.page, after=pages.after(request.page_token), limit=size + 1)
        page, following = pages.slice(rows, size, lambda row: row.name)
        return pb.ListCloudKeysResponse(cloud_keys=map(convert.cloud_key, page), next_page_token=following)

    async def DeleteCloudKey(self, request: pb.DeleteCloudKeyRequest, context: object) -> Empty:
        with audited("delete cloud key", key=request.key):
            await to_thread(self._store.delete, names.key_reference(request.key))
            return Empty()

    async def Sign(self, request: pb.SignRequest, context: object) -> pb.SignResponse:
        with audited("sign", key=request.key, algorithm=request.algorithm):
            if not 0 < len(request.data) <= LARGEST_SIGNED:
                raise InvalidArgument(f"data must be 1 to {LARGEST_SIGNED} bytes", field="data")
            signature = await to_thread(self._sign, names.key_reference(request.key), request.data, request.algorithm)
            return pb.SignResponse(signature=signature)

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
