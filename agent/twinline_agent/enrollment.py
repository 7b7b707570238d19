"""Getting a certificate, and keeping it fresh."""

import asyncio
import logging
import random
import time

import grpc
import grpc.aio

from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline.agent_gateway.v1 import agents_pb2_grpc as rpc
from twinline_agent import channels, openssl
from twinline_agent.errors import Refused, Unusable
from twinline_agent.identity import Certificate, IdentityStore
from twinline_agent.user_data import UserData

log = logging.getLogger(__name__)

_TIMEOUT = 30.0
_RETRY = 60.0
_SPREAD = 0.1
_SOONEST, _SOONEST_SHARE, _LEAST = 60.0, 0.1, 1.0


class Enrollment:
    """This agent's certificate. Its key stays for life, so that a lost answer or a long absence can be made good."""

    def __init__(self, user_data: UserData, store: IdentityStore) -> None:
        self._user_data = user_data
        self._store = store

    async def certificate(self) -> Certificate:
        """A certificate that is valid by this host's clock; enrols when there is none.

        Raises AioRpcError when the gateway cannot be reached or refuses, Unusable when this host cannot make keys.
        """
        kept = self._store.certificate()
        return kept if kept and kept.is_valid(time.time()) else await self._enroll()

    def key(self) -> bytes:
        """The private key, PEM."""
        return self._store.key()

    async def keep_fresh(self, stub: "rpc.AgentServiceAsyncStub") -> None:
        """Renew at half life, over the stream's own connection, until cancelled."""
        while True:
            kept = self._store.certificate()
            await asyncio.sleep(until_renewal(kept, time.time()) if kept else 0.0)
            try:
                request = pb.RenewRequest(certificate_request=await self._request())
                self._keep(await stub.Renew(request, timeout=_TIMEOUT))
                log.info("certificate renewed")
            except (grpc.aio.AioRpcError, OSError, Unusable) as error:
                # The present one is good for as long again; a refusal also cuts the stream, and is noticed there.
                log.warning("certificate not renewed", extra={"why": _said(error)})
                left = kept.expires - time.time() if kept else 0.0
                await asyncio.sleep(random.uniform(0.5, 1.0) * (min(left / 2, _RETRY) if left > 1.0 else _RETRY))

    async def _enroll(self) -> Certificate:
        await asyncio.to_thread(self._store.make_key)
        request = pb.EnrollRequest(token=self._user_data.token, certificate_request=await self._request())
        async with channels.anonymous(self._user_data.enroll_address, self._user_data.authority) as channel:
            stub: rpc.AgentServiceAsyncStub = rpc.AgentServiceStub(channel)
            certificate = self._keep(await stub.Enroll(request, timeout=_TIMEOUT))
        log.info("enrolled")
        return certificate

    async def _request(self) -> bytes:
        return await asyncio.to_thread(openssl.make_request, self._store.key_file)

    def _keep(self, response: pb.EnrollResponse) -> Certificate:
        if response.agent_id != self._user_data.agent_id:
            raise Refused(
                f"the token is that of {response.agent_id}, this is {self._user_data.agent_id}: check user-data"
            )
        now = time.time()
        lifetime = response.lifetime.ToNanoseconds() / 1e9
        certificate = Certificate(response.certificate.decode(), obtained=now, expires=now + lifetime)
        self._store.save(certificate)
        return certificate


def until_renewal(kept: Certificate, now: float) -> float:
    """Seconds until half life, or a little less: agents that enrolled together shall not renew together.

    At least a minute, or a tenth of a life that is short: whatever clocks say, nobody is flooded.
    """
    life = kept.expires - kept.obtained
    due = kept.obtained + life * (0.5 - random.uniform(0.0, _SPREAD))
    return max(due - now, min(_SOONEST, life * _SOONEST_SHARE), _LEAST)


def _said(error: Exception) -> str | None:
    return error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
