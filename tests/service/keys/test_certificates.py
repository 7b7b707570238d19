"""Agents' certificates."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.protobuf.duration_pb2 import Duration

from tests.peers.authority import Certificates
from tests.peers.serving import Served
from tests.service.keys.conftest import Certs
from twinline.keys.v1 import certificates_pb2 as pb
from twinline.keys.v1 import cloud_keys_pb2, cloud_keys_pb2_grpc
from twinline_kit.client import mesh_channel
from twinline_kit.errors import InvalidArgument, PermissionDenied
from twinline_kit.tls import CertificateRequestMalformed, Identity, agent_uri, service_uri

KEY = ec.generate_private_key(ec.SECP256R1())


async def test_a_certificate_names_the_agent_whatever_the_request_says(certificates: Certs) -> None:
    answer = await certificates.SignAgentCertificate(request(asks_for=service_uri("executor")))
    certificate = x509.load_pem_x509_certificate(answer.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(agent_uri("agent-1"))]
    assert certificate.public_key() == KEY.public_key()


async def test_the_mesh_takes_the_certificate_for_that_agent(
    certificates: Certs, keys: Served, authority: Certificates
) -> None:
    answer = await certificates.SignAgentCertificate(request())
    key = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    async with mesh_channel(keys.bound.mesh, Identity(answer.certificate, key, authority.ca)) as channel:
        with pytest.raises(PermissionDenied, match="agent agent-1 may not"):
            await cloud_keys_pb2_grpc.CloudKeyServiceStub(channel).Sign(cloud_keys_pb2.SignRequest())


async def test_a_certificate_ends_when_it_was_asked_to(certificates: Certs) -> None:
    for lifetime in (None, timedelta(minutes=5), timedelta(days=30)):
        answer = await certificates.SignAgentCertificate(request(lifetime=lifetime))
        certificate = x509.load_pem_x509_certificate(answer.certificate)
        assert answer.expire_time.ToDatetime(UTC) == certificate.not_valid_after_utc
        left = certificate.not_valid_after_utc - datetime.now(UTC)
        assert abs(left - (lifetime or timedelta(hours=24))) < timedelta(minutes=1)


async def test_a_lifetime_out_of_bounds_is_refused(certificates: Certs) -> None:
    for lifetime in (timedelta(), timedelta(seconds=-1), timedelta(days=30, seconds=1)):
        with pytest.raises(InvalidArgument, match="lifetime must be"):
            await certificates.SignAgentCertificate(request(lifetime=lifetime))
    endless = request()
    endless.lifetime.seconds = 2**63 - 1
    with pytest.raises(InvalidArgument, match="lifetime must be"):
        await certificates.SignAgentCertificate(endless)


async def test_an_id_that_no_agent_has_is_refused(certificates: Certs) -> None:
    for agent_id in ("", "a/b", "../x", "x" * 129, "a\nb"):
        with pytest.raises(InvalidArgument, match="agent_id must be"):
            await certificates.SignAgentCertificate(request(agent_id=agent_id))


async def test_what_is_no_request_is_refused(certificates: Certs) -> None:
    for csr in (b"", b"nonsense", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"):
        with pytest.raises(CertificateRequestMalformed):
            await certificates.SignAgentCertificate(
                pb.SignAgentCertificateRequest(agent_id="agent-1", certificate_request=csr)
            )


def request(
    agent_id: str = "agent-1", lifetime: timedelta | None = None, asks_for: str = ""
) -> pb.SignAgentCertificateRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if asks_for:
        wanted = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(asks_for)])
        builder = builder.add_extension(wanted, critical=False)
    message = pb.SignAgentCertificateRequest(
        agent_id=agent_id, certificate_request=builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM)
    )
    if lifetime is not None:
        duration = Duration()
        duration.FromTimedelta(lifetime)
        message.lifetime.CopyFrom(duration)
    return message
