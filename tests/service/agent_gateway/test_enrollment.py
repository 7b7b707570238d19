"""From a token to a certificate."""

import asyncio
import logging
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.duration_pb2 import Duration

from tests.peers.authority import Certificates
from tests.peers.ports import free_port
from tests.peers.serving import Served
from tests.service.agent_gateway.running import Gateway, gateway_settings, running_gateway
from twinline.agent_gateway.v1 import agents_pb2, agents_pb2_grpc, fleet_pb2
from twinline_agent_gateway.errors import (
    AgentRevoked,
    EnrollmentKeyDiffers,
    EnrollmentRefused,
    EnrollmentUsed,
    SigningUnavailable,
)
from twinline_agent_gateway.models import Agent
from twinline_agent_gateway.store import AgentStore
from twinline_kit import clock, db, tls
from twinline_kit.errors import InvalidArgument
from twinline_kit.secret_files import SecretFileUnusable

OLD = fleet_pb2.CreateEnrollmentRequest(server="web-1", request_id="the same request")


def certificate_request(key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    """A request that asks for a name it must not get."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "admin")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


async def enroll(gateway: Gateway, token: str, request: bytes | None = None) -> agents_pb2.EnrollResponse:
    """Enrol as a machine that has nothing but its token."""
    stub: agents_pb2_grpc.AgentServiceAsyncStub = agents_pb2_grpc.AgentServiceStub(gateway.served.with_token(None))
    request = request or certificate_request()
    return await stub.Enroll(agents_pb2.EnrollRequest(token=token, certificate_request=request))


def identity(certificate: bytes) -> str:
    """The URI in a certificate."""
    loaded = x509.load_pem_x509_certificate(certificate)
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)[0]


async def test_a_token_becomes_a_certificate_of_the_agent_it_was_made_for(gateway: Gateway) -> None:
    enrollment = await gateway.enrollment()
    response = await enroll(gateway, enrollment.token)
    assert response.agent_id == enrollment.agent_id
    assert identity(response.certificate) == tls.agent_uri(enrollment.agent_id)
    assert timedelta(hours=23, minutes=55) < response.lifetime.ToTimedelta() <= timedelta(hours=24)
    assert await gateway.state(enrollment.agent_id) == "LOST"


async def test_the_same_token_with_the_same_key_gets_a_certificate_again(gateway: Gateway) -> None:
    enrollment, key = await gateway.enrollment(), ec.generate_private_key(ec.SECP256R1())
    first = await enroll(gateway, enrollment.token, certificate_request(key))
    again = await enroll(gateway, enrollment.token, certificate_request(key))
    assert again.agent_id == first.agent_id
    assert identity(again.certificate) == identity(first.certificate)


async def test_a_second_machine_with_the_token_is_refused_and_logged(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    enrollment = await gateway.enrollment()
    await enroll(gateway, enrollment.token)
    with caplog.at_level(logging.WARNING), pytest.raises(EnrollmentRefused, match="another machine"):
        await enroll(gateway, enrollment.token)
    (line,) = [record for record in caplog.records if record.msg == "enrolment token used twice"]
    assert vars(line)["agent"] == enrollment.agent_id
    assert enrollment.token not in caplog.text


async def test_of_100_machines_with_one_token_one_gets_an_identity(gateway: Gateway) -> None:
    enrollment = await gateway.enrollment()
    requests = [certificate_request() for _ in range(100)]
    outcomes = await asyncio.gather(
        *(enroll(gateway, enrollment.token, request) for request in requests), return_exceptions=True
    )
    won = [outcome for outcome in outcomes if isinstance(outcome, agents_pb2.EnrollResponse)]
    assert [each.agent_id for each in won] == [enrollment.agent_id]
    assert all(isinstance(outcome, EnrollmentRefused) for outcome in outcomes if outcome is not won[0])


async def test_an_unknown_or_expired_token_is_refused(gateway: Gateway) -> None:
    with pytest.raises(EnrollmentRefused, match="unknown"):
        await enroll(gateway, "never-made")
    with pytest.raises(EnrollmentRefused, match="expired"):
        await enroll(gateway, (await gateway.enrollment(nanos=1000)).token)


@pytest.mark.parametrize("request_bytes", [b"", b"no request", b"x" * 20_000])
async def test_what_is_no_certificate_request_is_refused_and_spends_nothing(
    gateway: Gateway, request_bytes: bytes
) -> None:
    enrollment = await gateway.enrollment()
    with pytest.raises(tls.CertificateRequestMalformed):
        await enroll(gateway, enrollment.token, request_bytes or b"\n")
    assert (await enroll(gateway, enrollment.token)).agent_id == enrollment.agent_id


async def test_a_repeated_request_gets_the_same_agent_and_the_same_token_until_it_is_used(gateway: Gateway) -> None:
    first, again = await gateway.fleet.CreateEnrollment(OLD), await gateway.fleet.CreateEnrollment(OLD)
    assert (again.agent_id, again.token) == (first.agent_id, first.token)
    assert (await enroll(gateway, first.token)).agent_id == first.agent_id
    with pytest.raises(EnrollmentUsed):
        await gateway.fleet.CreateEnrollment(OLD)


async def test_a_repeated_request_makes_the_token_good_again(gateway: Gateway) -> None:
    short = fleet_pb2.CreateEnrollmentRequest(
        server="web-1", request_id="the same request", lifetime=Duration(nanos=1000)
    )
    expired = await gateway.fleet.CreateEnrollment(short)
    with pytest.raises(EnrollmentRefused, match="expired"):
        await enroll(gateway, expired.token)
    await gateway.fleet.CreateEnrollment(OLD)
    assert (await enroll(gateway, expired.token)).agent_id == expired.agent_id


async def test_of_many_requests_at_once_all_get_one_token(gateway: Gateway) -> None:
    answers = await asyncio.gather(*(gateway.fleet.CreateEnrollment(OLD) for _ in range(20)))
    assert len({(answer.agent_id, answer.token) for answer in answers}) == 1
    assert await enroll(gateway, answers[0].token)


async def test_a_gateway_that_starts_again_gives_the_same_token_and_one_with_another_key_gives_none(
    authority: Certificates, tmp_path: Path, keys: Served, database_url: str
) -> None:
    settings = gateway_settings(authority, tmp_path / "gateway", keys, database_url)
    async with running_gateway(authority, settings) as gateway:
        first = await gateway.fleet.CreateEnrollment(OLD)
    async with running_gateway(authority, settings) as gateway:
        assert (await gateway.fleet.CreateEnrollment(OLD)).token == first.token
    settings.enrollment_key_file.unlink()
    async with running_gateway(authority, settings) as gateway:
        with pytest.raises(EnrollmentKeyDiffers, match="give every replica the same key file"):
            await gateway.fleet.CreateEnrollment(OLD)
        assert (await enroll(gateway, first.token)).agent_id == first.agent_id


async def test_a_key_that_could_be_guessed_is_refused(
    authority: Certificates, tmp_path: Path, keys: Served, database_url: str
) -> None:
    settings = gateway_settings(authority, tmp_path / "gateway", keys, database_url)
    settings.enrollment_key_file.write_text("short")
    settings.enrollment_key_file.chmod(0o600)
    with pytest.raises(SecretFileUnusable, match="shorter than 32 characters"):
        async with running_gateway(authority, settings):
            pass


@pytest.mark.parametrize(
    "wrong",
    [
        {"server": ""},
        {"request_id": ""},
        {"request_id": "x" * 129},
        {"lifetime": Duration(seconds=-1)},
        {"lifetime": Duration(seconds=31 * 86400)},
        {"lifetime": Duration(seconds=2**63 - 1)},
        {"lifetime": Duration(seconds=-(2**63))},
    ],
)
async def test_a_malformed_enrolment_is_refused(gateway: Gateway, wrong: dict[str, object]) -> None:
    request: dict[str, object] = {"server": "web-1", "request_id": "r"} | wrong
    with pytest.raises(InvalidArgument):
        await gateway.fleet.CreateEnrollment(fleet_pb2.CreateEnrollmentRequest(**request))  # type: ignore[arg-type]


async def test_an_agent_renews_its_certificate_until_it_is_revoked(gateway: Gateway) -> None:
    enrollment, key = await gateway.enrollment(), ec.generate_private_key(ec.SECP256R1())
    await enroll(gateway, enrollment.token, certificate_request(key))
    channel = gateway.served.as_agent(enrollment.agent_id)
    stub: agents_pb2_grpc.AgentServiceAsyncStub = agents_pb2_grpc.AgentServiceStub(channel)
    renewal = agents_pb2.RenewRequest(certificate_request=certificate_request(key))
    assert identity((await stub.Renew(renewal)).certificate) == tls.agent_uri(enrollment.agent_id)
    await gateway.fleet.RevokeAgent(fleet_pb2.RevokeAgentRequest(agent_id=enrollment.agent_id))
    with pytest.raises(AgentRevoked):
        await stub.Renew(renewal)
    with pytest.raises(EnrollmentRefused, match="revoked"):
        await enroll(gateway, enrollment.token, certificate_request(key))


def test_the_machine_that_spent_a_token_may_come_back_after_it_expired(database_url: str) -> None:
    engine = db.open(database_url)
    db.migrate(engine, "twinline_agent_gateway")
    store, start = AgentStore(engine), clock.now()
    expires = start + timedelta(hours=1)
    store.prepare(Agent(id="agent-1", server="web-1", request_id="r", token_hash="h", token_expire_time=expires))
    later = start + timedelta(days=90)
    assert store.spend(token_hash="h", key_digest="k", at=later) is None
    assert store.spend(token_hash="h", key_digest="k", at=start) == "agent-1"
    assert store.spend(token_hash="h", key_digest="k", at=later) == "agent-1"
    assert store.spend(token_hash="h", key_digest="other", at=start) is None
    engine.dispose()


async def test_while_keys_is_away_a_machine_is_asked_to_try_again_and_its_token_stays_its_own(
    authority: Certificates, tmp_path: Path, keys: Served, database_url: str
) -> None:
    settings = gateway_settings(authority, tmp_path / "gateway", keys, database_url)
    request = certificate_request()
    without_keys = settings.model_copy(update={"keys_address": f"127.0.0.1:{free_port()}"})
    async with running_gateway(authority, without_keys) as gateway:
        enrollment = await gateway.enrollment()
        with pytest.raises(SigningUnavailable):
            await enroll(gateway, enrollment.token, request)
    async with running_gateway(authority, settings) as gateway:
        with pytest.raises(EnrollmentRefused):
            await enroll(gateway, enrollment.token)
        assert (await enroll(gateway, enrollment.token, request)).agent_id == enrollment.agent_id
