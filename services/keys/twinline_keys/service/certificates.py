"""Certificates of agents."""

from asyncio import to_thread
from datetime import datetime, timedelta

from cryptography import x509

from twinline.keys.v1 import certificates_pb2 as pb
from twinline.keys.v1 import certificates_pb2_grpc as rpc
from twinline_keys import names
from twinline_keys.audit import audited
from twinline_kit import times
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
            return pb.SignAgentCertificateResponse(certificate=pem, expire_time=times.timestamp(_expiry(pem)))


def _lifetime(request: pb.SignAgentCertificateRequest) -> timedelta:
    if not request.HasField("lifetime"):
        return USUAL_LIFETIME
    return times.given(request.lifetime, LONGEST_LIFETIME, field="lifetime")


def _expiry(pem: bytes) -> datetime:
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc
