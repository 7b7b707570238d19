"""Certificates: what a process shows (`Identity`), and who signs it (`Authority`)."""

import hashlib
import ipaddress
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from twinline_kit import clock, files
from twinline_kit.auth import Kind
from twinline_kit.errors import FailedPrecondition, InvalidArgument

_URI = re.compile(r"spiffe://twinline/(service|agent)/([A-Za-z0-9][A-Za-z0-9._-]{0,127})")
_CA_LIFETIME = timedelta(days=3650)
_CLOCK_SKEW = timedelta(minutes=5)
_MAX_CSR = 16_384
_RSA_BITS = range(2048, 4097)


class CertificateRequestMalformed(InvalidArgument):
    """A certificate signing request that we do not sign."""

    reason = "CERTIFICATE_REQUEST_MALFORMED"


class CertificateUnusable(FailedPrecondition):
    """A certificate, key or CA file that is missing or cannot be read."""

    reason = "CERTIFICATE_UNUSABLE"


def service_uri(name: str) -> str:
    """The identity of a service, as its certificate carries it."""
    return _checked(f"spiffe://twinline/service/{name}")


def agent_uri(agent_id: str) -> str:
    """The identity of an agent, as its certificate carries it."""
    return _checked(f"spiffe://twinline/agent/{agent_id}")


def parse_uri(uri: str) -> tuple[Kind, str]:
    """What `service_uri` or `agent_uri` made: the kind and the name. Anything else: InvalidArgument."""
    if match := _URI.fullmatch(uri):
        return Kind(match[1]), match[2]
    raise InvalidArgument(
        f"{uri!r} is no identity of ours: want spiffe://twinline/service/NAME or .../agent/ID", uri=uri
    )


def _checked(uri: str) -> str:
    parse_uri(uri)
    return uri


@dataclass(frozen=True)
class Identity:
    """A certificate chain, its private key, and the CA whose certificates we trust; all PEM."""

    certificate: bytes
    key: bytes = field(repr=False)
    ca: bytes

    @classmethod
    def load(cls, certificate: Path, key: Path, ca: Path) -> "Identity":
        """Read the three files. CertificateUnusable names the one that cannot be read."""
        return cls(_read(certificate), _read(key), _read(ca))


class Authority:
    """Our own CA: EC P-256, one key, signs leaf certificates only."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate

    @property
    def ca_pem(self) -> bytes:
        """The CA's certificate, which everybody may see."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def create(cls, folder: Path) -> "Authority":
        """Load the CA in `folder`, after making it when there is none. Safe when two processes start at once.

        CertificateUnusable when the folder cannot be written, or holds something else.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (folder / "ca.key").exists():
                files.create(folder / "ca.key", _pem(ec.generate_private_key(ec.SECP256R1())))
            if not (folder / "ca.pem").exists():
                certificate = _self_signed(_load_key(folder / "ca.key"))
                files.create(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
        except OSError as error:
            why = (error.strerror or "unknown error").lower()
            text = f"cannot make a certificate authority in {folder}: {why}; choose a folder that can be written"
            raise CertificateUnusable(text, path=str(folder)) from error
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> "Authority":
        """Read `ca.key` and `ca.pem` of `folder`, or CertificateUnusable."""
        key = _load_key(folder / "ca.key")
        try:
            certificate = x509.load_pem_x509_certificate(_read(folder / "ca.pem"))
        except ValueError as error:
            raise CertificateUnusable(f"{folder / 'ca.pem'} holds no certificate: restore it") from error
        if certificate.public_key() != key.public_key():
            raise CertificateUnusable(f"ca.pem and ca.key in {folder} do not belong together: restore both")
        return cls(key, certificate)

    def issue(self, *, uri: str | None, names: Sequence[str] = (), lifetime: timedelta) -> Identity:
        """A new key and its certificate: for a client when `uri` is given, for a server when host names or IPs are."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._leaf(key.public_key(), uri, names, lifetime)
        return Identity(certificate.public_bytes(serialization.Encoding.PEM), _pem(key), self.ca_pem)

    def sign(self, csr_pem: bytes, *, uri: str, lifetime: timedelta) -> bytes:
        """A client certificate (PEM) for the key of a signing request; the names the request asks for are ignored."""
        certificate = self._leaf(_requested_key(csr_pem), uri, (), lifetime)
        return certificate.public_bytes(serialization.Encoding.PEM)

    def _leaf(
        self,
        public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        uri: str | None,
        names: Sequence[str],
        lifetime: timedelta,
    ) -> x509.Certificate:
        alternatives = [*([x509.UniformResourceIdentifier(_checked(uri))] if uri else ()), *map(_alternative, names)]
        if not alternatives:
            raise InvalidArgument("a certificate needs a uri or a name")
        usages = [
            *([ExtendedKeyUsageOID.SERVER_AUTH] if names else ()),
            *([ExtendedKeyUsageOID.CLIENT_AUTH] if uri else ()),
        ]
        at = clock.now()
        end = min(at + lifetime, self._certificate.not_valid_after_utc)
        builder = _builder(public, _name("Twinline leaf"), self._certificate.subject, at - _CLOCK_SKEW, end)
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage("digital_signature"), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(issuer, critical=False).sign(self._key, hashes.SHA256())


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    at = clock.now()
    # The random part tells two CAs apart, so that a mix-up fails as "unknown issuer" and not as a bad signature.
    name = _name(f"Twinline CA {secrets.token_hex(4)}")
    builder = _builder(key.public_key(), name, name, at - _CLOCK_SKEW, at + _CA_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
    return builder.sign(key, hashes.SHA256())


def _builder(
    public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    subject: x509.Name,
    issuer: x509.Name,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number(), start, end)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)


def _usage(*wanted: str) -> x509.KeyUsage:
    flags = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    return x509.KeyUsage(
        **{flag: flag in wanted for flag in (*flags, "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")}
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def requested_key_digest(csr_pem: bytes) -> str:
    """SHA-256 (hex) of the public key that a PEM certificate request is for. Raises CertificateRequestMalformed."""
    key = _requested_key(csr_pem)
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()


def _requested_key(csr_pem: bytes) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    if len(csr_pem) > _MAX_CSR:
        raise CertificateRequestMalformed(f"the certificate request is bigger than {_MAX_CSR} bytes")
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        public, proven = request.public_key(), request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, TypeError) as error:
        raise CertificateRequestMalformed("the certificate request cannot be read: send it as PEM") from error
    if not proven:
        raise CertificateRequestMalformed("the certificate request is not signed by its own key")
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, (ec.SECP256R1, ec.SECP384R1)):
        return public
    if isinstance(public, rsa.RSAPublicKey) and public.key_size in _RSA_BITS:
        return public
    raise CertificateRequestMalformed("the certificate request's key is not accepted: use EC P-256")


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateUnusable(f"{path} holds no private key: restore it", path=str(path)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateUnusable(f"{path} holds a key of another type than ours: restore it", path=str(path))
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, shape = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, shape, serialization.NoEncryption())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        text = f"cannot read {path}: {(error.strerror or 'unknown error').lower()}; check the path and its owner"
        raise CertificateUnusable(text, path=str(path)) from error
