"""Certificates of agents."""

from asyncio import to_thread
from datetime import datetime, timedelta

from cryptography import x509

from twinline.keys.v1 import certificates_pb2 as pb
from twinline.keys.v1 import certificates_pb2_grpc as rpc
from twinline_keys import names
from twinline_keys.audit import audited
from twinline_kit.errors import InvalidArgument
from twinline_kit.times import timestamp
from twinline_kit.tls import Authority, agent_uri

USUAL_LIFETIME, LONGEST_LIFETIME = timedelta(hours=24), timedelta(days=30)


class CertificateService(rpc.CertificateServiceServicer):
    """Signs certificates with the suite's authority."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    async def SignAgentCertificate(
        self, request: pb.SignAgentCertificateRequest, context: object
    ) -> pb.SignAgentCertificateResponse:
        with audited("sign agent certificate", agent=request.agent_id):
            uri, lifetime = agent_uri(names.agent_id(request.agent_id)), _lifetime(request)
            pem = await to_thread(self._authority.sign, request.certificate_request, uri=uri, lifetime=lifetime)
            return pb.SignAgentCertificateResponse(certificate=pem, expire_time=timestamp(_expiry(pem)))


def _lifetime(request: pb.SignAgentCertificateRequest) -> timedelta:
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
