"""Credentials: values that are named in runs, sealed here and opened for the executor."""

from asyncio import to_thread

from google.protobuf.empty_pb2 import Empty

from twinline.keys.v1 import credentials_pb2 as pb
from twinline.keys.v1 import credentials_pb2_grpc as rpc
from twinline_keys import convert, names
from twinline_keys.audit import audited
from twinline_keys.models import Credential
from twinline_keys.sealing import Sealer
from twinline_keys.store import CredentialStore
from twinline_kit import pages
from twinline_kit.clock import Clock
from twinline_kit.errors import InvalidArgument
from twinline_kit.times import timestamp

CREDENTIAL = "credential"
LARGEST_VALUE = 64 * 1024
MOST_OPENED = 1000


class CredentialService(rpc.CredentialServiceServicer):
    """Credentials. Values leave only for the executor."""

    def __init__(self, store: CredentialStore, sealer: Sealer, clock: Clock) -> None:
        self._store = store
        self._sealer = sealer
        self._clock = clock

    async def SetCredential(self, request: pb.SetCredentialRequest, context: object) -> pb.Credential:
        with audited("set credential", credential=request.name):
            name = names.credential_name(request.name)
            if not 0 < len(request.value) <= LARGEST_VALUE:
                raise InvalidArgument(f"value of a credential must be 1 to {LARGEST_VALUE} bytes", field="value")
            sealed = self._sealer.seal(CREDENTIAL, name, request.value)
            row = Credential(name=name, sealed=sealed, update_time=self._clock())
            return convert.credential(await to_thread(self._store.put, row))

    async def ListCredentials(self, request: pb.ListCredentialsRequest, context: object) -> pb.ListCredentialsResponse:
        size = pages.page_size(request.page_size)
        rows = await to_thread(self._store.page, after=pages.after(request.page_token), limit=size + 1)
        page, following = pages.slice(rows, size, lambda row: row.name)
        return pb.ListCredentialsResponse(credentials=map(convert.credential, page), next_page_token=following)

    async def DeleteCredential(self, request: pb.DeleteCredentialRequest, context: object) -> Empty:
        with audited("delete credential", credential=request.name):
            await to_thread(self._store.delete, names.credential_name(request.name))
            return Empty()

    async def OpenCredentials(self, request: pb.OpenCredentialsRequest, context: object) -> pb.OpenCredentialsResponse:
        with audited("open credentials", credentials=" ".join(request.names)):
            if len(request.names) > MOST_OPENED:
                raise InvalidArgument(f"names are more than {MOST_OPENED}: ask in several calls", field="names")
            wanted = [names.credential_name(name) for name in request.names]
            return await to_thread(self._open, wanted)

    def _open(self, wanted: list[str]) -> pb.OpenCredentialsResponse:
        rows = self._store.named(wanted)
        return pb.OpenCredentialsResponse(
            values={row.name: self._sealer.open(CREDENTIAL, row.name, row.sealed) for row in rows},
            update_times={row.name: timestamp(row.update_time) for row in rows},
        )
