"""How a machine becomes an agent: a token that works once, then certificates for one key.

A token is derived from the agent's id with a secret that lies beside the database, not in it. So a repeated request
gets the same token again from any replica, and a stolen database, which has only hashes, gives none.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import secrets
from datetime import UTC, timedelta
from pathlib import Path

import grpc.aio

from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline.keys.v1 import certificates_pb2, certificates_pb2_grpc
from twinline_agent_gateway.errors import EnrollmentKeyDiffers, EnrollmentRefused, SigningUnavailable
from twinline_agent_gateway.models import Agent
from twinline_agent_gateway.store import AgentStore
from twinline_kit import secret_files
from twinline_kit.clock import Clock
from twinline_kit.errors import Error, InvalidArgument
from twinline_kit.ids import new_id
from twinline_kit.secret_files import SecretFileUnusable
from twinline_kit.times import duration
from twinline_kit.tls import requested_key_digest

log = logging.getLogger(__name__)

SHORTEST_KEY = 32


def load_key(path: Path) -> bytes:
    """The secret in `path`, made when there is no such file yet. Raises SecretFileUnusable."""
    key = secret_files.read_or_make(path, lambda: secrets.token_urlsafe(32))
    if len(key) < SHORTEST_KEY:
        raise SecretFileUnusable(
            f"the key in {path} is shorter than {SHORTEST_KEY} characters: delete the file, a new one is made",
            file=str(path),
        )
    return key.encode()


class Enrollments:
    """Prepares agents, spends their tokens, has their certificates signed."""

    def __init__(
        self, store: AgentStore, keys: grpc.aio.Channel, *, key: bytes, lifetime: timedelta, clock: Clock
    ) -> None:
        """`key` derives tokens; `lifetime` is that of certificates."""
        self._store = store
        self._key = key
        stub: certificates_pb2_grpc.CertificateServiceAsyncStub = certificates_pb2_grpc.CertificateServiceStub(keys)
        self._certificates = stub
        self._lifetime = lifetime
        self._clock = clock

    async def prepare(self, *, server: str, request_id: str, lifetime: timedelta) -> tuple[str, str]:
        """A new agent's id and its token, or those of an earlier call with this request_id, good for `lifetime` again.

        Raises EnrollmentUsed or EnrollmentKeyDiffers.
        """
        agent_id = new_id("agent")
        made = Agent(
            id=agent_id,
            server=server,
            request_id=request_id,
            token_hash=_hash(self._token(agent_id)),
            token_expire_time=self._clock() + lifetime,
        )
        agent = await asyncio.to_thread(self._store.prepare, made)
        token = self._token(agent.id)
        if _hash(token) != agent.token_hash:
            raise EnrollmentKeyDiffers(
                f"the token of {agent.id} was made with another enrolment key: give every replica the same key file, "
                "then launch again",
                agent=agent.id,
            )
        return agent.id, token

    def _token(self, agent_id: str) -> str:
        derived = hmac.digest(self._key, f"enrolment of {agent_id}".encode(), "sha256")
        return base64.urlsafe_b64encode(derived).decode().rstrip("=")

    async def enroll(self, token: str, certificate_request: bytes) -> pb.EnrollResponse:
        """Spend the token on the request's key, or see that this was done before, and have the certificate signed.

        Expiry is for unused tokens: the machine whose key spent one may come back after any absence.
        """
        digest = await asyncio.to_thread(requested_key_digest, certificate_request)
        token_hash = _hash(token)
        agent_id = await asyncio.to_thread(
            lambda: self._store.spend(token_hash=token_hash, key_digest=digest, at=self._clock())
        )
        if agent_id is None:
            raise await self._refusal(token_hash)
        return await self._sign(agent_id, certificate_request)

    async def renew(self, agent_id: str, certificate_request: bytes) -> pb.EnrollResponse:
        """The next certificate of an agent that showed its present one. Raises AgentRevoked."""
        digest = await asyncio.to_thread(requested_key_digest, certificate_request)
        await asyncio.to_thread(self._store.rebind, agent_id, digest)
        return await self._sign(agent_id, certificate_request)

    async def _sign(self, agent_id: str, certificate_request: bytes) -> pb.EnrollResponse:
        request = certificates_pb2.SignAgentCertificateRequest(
            agent_id=agent_id, certificate_request=certificate_request, lifetime=duration(self._lifetime)
        )
        try:
            signed = await self._certificates.SignAgentCertificate(request)
        except InvalidArgument:
            raise
        except Error as error:
            # Whatever keys has against this service is not the agent's fault, and no reason for it to give up.
            raise SigningUnavailable(f"no certificate now: keys says {error.message}; try again later") from error
        left = signed.expire_time.ToDatetime(UTC) - self._clock()
        return pb.EnrollResponse(agent_id=agent_id, certificate=signed.certificate, lifetime=duration(left))

    async def _refusal(self, token_hash: str) -> EnrollmentRefused:
        agent = await asyncio.to_thread(self._store.of_token, token_hash)
        if agent is None:
            return EnrollmentRefused("the enrolment token is unknown: launch the server again")
        if agent.revoked:
            return EnrollmentRefused(f"agent {agent.id} was revoked: launch another server", agent=agent.id)
        if agent.key_digest is not None:
            log.warning("enrolment token used twice", extra={"agent": agent.id, "server": agent.server})
            return EnrollmentRefused(
                f"the enrolment token of {agent.id} was spent by another machine: find out which, then launch again",
                agent=agent.id,
            )
        return EnrollmentRefused(
            f"the enrolment token of {agent.id} has expired: launch the server again", agent=agent.id
        )


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
