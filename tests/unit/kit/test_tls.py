"""The authority: what it makes, keeps, signs and refuses."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from twinline_kit import clock
from twinline_kit.auth import Kind
from twinline_kit.errors import InvalidArgument
from twinline_kit.tls import (
    Authority,
    CertificateRequestMalformed,
    CertificateUnusable,
    Identity,
    agent_uri,
    parse_uri,
    service_uri,
)

DAY = timedelta(days=1)
AGENT = agent_uri("agent-1")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca")


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None, name: str = "admin.example") -> bytes:
    builder = x509.CertificateSigningRequestBuilder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
    names = [x509.DNSName(name), x509.UniformResourceIdentifier(service_uri("keys"))]
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def alternatives(pem: bytes) -> list[object]:
    certificate = x509.load_pem_x509_certificate(pem)
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [name.value for name in found]


def usages(pem: bytes) -> set[x509.ObjectIdentifier]:
    certificate = x509.load_pem_x509_certificate(pem)
    return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_the_key_of_the_authority_is_for_its_owner_only(authority: Authority, tmp_path: Path) -> None:
    assert (tmp_path / "ca" / "ca.key").stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in (tmp_path / "ca").iterdir()) == ["ca.key", "ca.pem"]


def test_an_authority_is_made_once(authority: Authority, tmp_path: Path) -> None:
    assert Authority.create(tmp_path / "ca").ca_pem == Authority.load(tmp_path / "ca").ca_pem == authority.ca_pem


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CertificateUnusable, match="choose a folder that can be written"):
        Authority.create(tmp_path / "file" / "ca")


def test_many_that_start_at_once_get_the_same_authority(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: Authority.create(tmp_path / "new"), range(8)))
    assert len({each.ca_pem for each in made}) == 1


def test_an_authority_whose_certificate_was_lost_makes_another_for_its_key(
    authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "ca" / "ca.pem").unlink()
    leaf = authority.issue(uri=AGENT, lifetime=DAY)
    again = x509.load_pem_x509_certificate(Authority.create(tmp_path / "ca").ca_pem)
    signed = x509.load_pem_x509_certificate(leaf.certificate)
    again.public_key().verify(  # type: ignore[union-attr, call-arg]
        signed.signature,
        signed.tbs_certificate_bytes,
        ec.ECDSA(hashes.SHA256()),  # type: ignore[arg-type]
    )


def test_an_authority_signs_no_further_authorities(authority: Authority) -> None:
    certificate = x509.load_pem_x509_certificate(authority.ca_pem)
    limits = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (limits.critical, limits.value.ca, limits.value.path_length) == (True, True, 0)


def test_files_that_do_not_belong_together_are_refused(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "ca" / "ca.pem").write_bytes(Authority.create(tmp_path / "other").ca_pem)
    with pytest.raises(CertificateUnusable, match="do not belong together"):
        Authority.load(tmp_path / "ca")


def test_a_service_gets_its_uri_and_names_for_both_directions(authority: Authority) -> None:
    identity = authority.issue(uri=service_uri("keys"), names=["localhost", "127.0.0.1", "::1"], lifetime=DAY)
    assert list(map(str, alternatives(identity.certificate))) == [
        "spiffe://twinline/service/keys", "localhost", "127.0.0.1", "::1"
    ]  # fmt: skip
    assert usages(identity.certificate) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_a_certificate_is_valid_for_its_lifetime_and_a_little_before(authority: Authority) -> None:
    certificate = x509.load_pem_x509_certificate(authority.issue(uri=AGENT, lifetime=DAY).certificate)
    before = clock.now() - certificate.not_valid_before_utc
    assert timedelta(minutes=4) < before < timedelta(minutes=7)
    assert timedelta() <= clock.now() + DAY - certificate.not_valid_after_utc < timedelta(minutes=1)


def test_a_certificate_does_not_outlive_its_authority(authority: Authority) -> None:
    leaf = x509.load_pem_x509_certificate(authority.issue(uri=AGENT, lifetime=100_000 * DAY).certificate)
    assert leaf.not_valid_after_utc == x509.load_pem_x509_certificate(authority.ca_pem).not_valid_after_utc


def test_signing_ignores_every_name_in_the_request(authority: Authority) -> None:
    signed = authority.sign(request(), uri=AGENT, lifetime=DAY)
    assert alternatives(signed) == [AGENT]
    assert usages(signed) == {ExtendedKeyUsageOID.CLIENT_AUTH}
    assert b"admin.example" not in x509.load_pem_x509_certificate(signed).public_bytes(serialization.Encoding.DER)


def test_a_request_signed_by_another_key_is_refused(authority: Authority) -> None:
    der = bytearray(x509.load_pem_x509_csr(request()).public_bytes(serialization.Encoding.DER))
    at = der.index(b"admin.example")
    der[at : at + 5] = b"nimda"
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(CertificateRequestMalformed, match="not signed by its own key"):
        authority.sign(forged, uri=AGENT, lifetime=DAY)


@pytest.mark.parametrize("csr", [b"", b"nonsense", b"x" * 100_000])
def test_what_is_no_request_is_refused(authority: Authority, csr: bytes) -> None:
    with pytest.raises(CertificateRequestMalformed):
        authority.sign(csr, uri=AGENT, lifetime=DAY)


def test_a_weak_key_is_refused(authority: Authority) -> None:
    with pytest.raises(CertificateRequestMalformed, match="use EC P-256"):
        authority.sign(request(ec.generate_private_key(ec.SECP192R1())), uri=AGENT, lifetime=DAY)


def test_uris_tell_who_they_are_for() -> None:
    assert parse_uri(service_uri("keys")) == (Kind.SERVICE, "keys")
    assert parse_uri(agent_uri("agent-1")) == (Kind.AGENT, "agent-1")


@pytest.mark.parametrize("name", ["", "a/b", "../keys", "a b", "-x", "a" * 129, "a\n"])
def test_a_name_that_could_be_misread_makes_no_uri(name: str) -> None:
    with pytest.raises(InvalidArgument):
        agent_uri(name)


@pytest.mark.parametrize(
    "uri", ["spiffe://other/agent/a", "spiffe://twinline/person/a", "https://twinline/agent/a", ""]
)
def test_another_uri_is_refused(uri: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_uri(uri)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CertificateUnusable, match=str(tmp_path / "none.pem")):
        Identity.load(tmp_path / "none.pem", tmp_path / "none.key", tmp_path / "ca.pem")


def test_a_private_key_is_not_in_the_representation(authority: Authority) -> None:
    assert "PRIVATE" not in repr(authority.issue(uri=AGENT, lifetime=DAY))
