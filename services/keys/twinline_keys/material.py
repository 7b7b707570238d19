"""SSH key material: reading it, telling whose it is, signing with it. Pure: nothing here stores or logs."""

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cached_property

import asyncssh
from cryptography.exceptions import UnsupportedAlgorithm

from twinline_keys.errors import KeyMalformed, KeyMaterialMismatch, SignatureAlgorithmUnsupported

LARGEST = 64 * 1024
ALGORITHMS = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
}
"""Signature algorithms by key type. SHA-1 signatures of RSA keys are left out: servers refuse them."""

SHA1_LENGTH = 20 * 3 - 1
# What reading a damaged key raises: by no means only the errors made for it.
UNREADABLE = (ValueError, OverflowError, UnsupportedAlgorithm, re.error)
WANTED = "give the private key file in OpenSSH or PEM form"
COLON_HEX = re.compile(r"(?:MD5:)?((?:[0-9a-f]{2}:){15}[0-9a-f]{2})|((?:[0-9a-f]{2}:){19}[0-9a-f]{2})", re.IGNORECASE)
BASE64_SHA256 = re.compile(r"(?:SHA256:)?([A-Za-z0-9+/]{43})=?")
# What people give instead of a private key: how it begins, what it is, what to do.
IMPOSTORS = (
    (rb"\A(?:ssh-|ecdsa-|sk-)\S+-cert-v01@openssh\.com ", "an OpenSSH certificate", WANTED),
    (rb"\A(?:ssh-|ecdsa-|sk-)\S+ ", "a public key", f"{WANTED} (the one without .pub)"),
    (rb"-----BEGIN (?:RSA |SSH2 )?PUBLIC KEY", "a public key", f"{WANTED} (the one without .pub)"),
    (rb"----[ -]BEGIN SSH2 PUBLIC KEY", "a public key", f"{WANTED} (the one without .pub)"),
    (rb"-----BEGIN CERTIFICATE-", "a certificate", WANTED),
    (rb"-----BEGIN CERTIFICATE REQUEST", "a certificate request", WANTED),
    (rb"\APuTTY-User-Key-File", "a PuTTY key", "convert it with puttygen FILE -O private-openssh"),
)


@dataclass(frozen=True)
class PublicHalf:
    """The half of a key that anybody may know."""

    line: str
    """One OpenSSH line without comment."""

    @cached_property
    def fingerprint(self) -> str:
        """`SHA256:…`, as OpenSSH shows it."""
        return f"SHA256:{base64.b64encode(hashlib.sha256(self._blob).digest()).decode().rstrip('=')}"

    def fingerprint_like(self, registered: str) -> str:
        """This key's fingerprint in the form of `registered`, or `SHA256:…` where it has none in that form."""
        forms = self._fingerprints()
        wanted = canonical(registered)
        return wanted if wanted in forms else next((form for form in forms if len(form) == len(wanted)), forms[0])

    def may_have(self, fingerprint: str) -> bool:
        """Whether the canonical `fingerprint` can be this key's; a SHA-1 one always can: it is of the private half."""
        return len(fingerprint) == SHA1_LENGTH or fingerprint in self._fingerprints()

    def _fingerprints(self) -> list[str]:
        key = asyncssh.import_public_key(self.line)
        # Clouds hash the DER form of an imported key, OpenSSH and some clouds the SSH form.
        return [self.fingerprint, _colon_md5(key.export_public_key("pkcs8-der")), _colon_md5(self._blob)]

    @property
    def _blob(self) -> bytes:
        return base64.b64decode(self.line.split()[1])


class PrivateHalf:
    """A private key in memory. Its text forms never show it."""

    def __init__(self, key: asyncssh.SSHKey) -> None:
        self._key = key
        algorithm, blob = key.export_public_key().decode().split()[:2]
        self.public = PublicHalf(f"{algorithm} {blob}")

    @classmethod
    def generate(cls) -> "PrivateHalf":
        """A new Ed25519 key."""
        return cls(asyncssh.generate_private_key("ssh-ed25519"))

    @classmethod
    def parse(cls, data: bytes, passphrase: str = "") -> "PrivateHalf":
        """Read a private key file. Raises KeyMalformed, which says what `data` is instead."""
        if len(data) > LARGEST:
            raise KeyMalformed(f"the private key is {len(data)} bytes, more than any key: {WANTED}")
        text = data.removeprefix(b"\xef\xbb\xbf").strip()
        _refuse_impostors(text)
        try:
            key = asyncssh.import_private_key(text, passphrase or None)
            private = cls(key)
        except UNREADABLE as error:
            raise _unreadable(text, passphrase, error) from None
        if _type_of(key) not in ALGORITHMS:
            raise KeyMalformed(f"the private key is of type {_type_of(key)}: give one of {', '.join(ALGORITHMS)}")
        return private

    @classmethod
    def load(cls, der: bytes) -> "PrivateHalf":
        """The key that `dump` gave."""
        # Checking an RSA key's numbers takes longer than fifty signatures, and `parse` did it before they were sealed.
        return cls(asyncssh.import_private_key(der, unsafe_skip_rsa_key_validation=True))

    def dump(self) -> bytes:
        """The key in clear, PKCS #8 DER: to be sealed at once."""
        return self._key.export_private_key("pkcs8-der")

    def sign(self, data: bytes, algorithm: str) -> bytes:
        """Sign `data`; the signature is in SSH wire form."""
        supported = ALGORITHMS[_type_of(self._key)]
        if algorithm not in supported:
            raise SignatureAlgorithmUnsupported(
                f"the key {self.public.fingerprint} cannot sign with {algorithm or 'no algorithm'}: "
                f"ask for {' or '.join(supported)}",
                algorithm=algorithm,
                supported=" ".join(supported),
            )
        return self._key.sign(data, algorithm.encode())

    def must_be(self, name: str, registered: str) -> None:
        """Raise KeyMaterialMismatch unless `registered`, a fingerprint in any form, is this key's."""
        given = self._fingerprint_like(registered)
        if given != canonical(registered):
            raise KeyMaterialMismatch(
                f"the private key given has fingerprint {given}, the key {name} has {registered}: "
                f"give the private half of {name}",
                key=name,
                expected=registered,
                given=given,
            )

    def _fingerprint_like(self, registered: str) -> str:
        # A cloud that made the key itself hashes the private half with SHA-1.
        if len(canonical(registered)) == SHA1_LENGTH:
            return _colon_hex(hashlib.sha1(self.dump(), usedforsecurity=False).digest())
        return self.public.fingerprint_like(registered)

    def __repr__(self) -> str:
        return f"<PrivateHalf of {self.public.fingerprint}>"


def parse_public(line: str) -> PublicHalf:
    """Read one OpenSSH public key line. Raises KeyMalformed, which says what it is instead."""
    text = line.strip()
    if "PRIVATE KEY" in text:
        raise KeyMalformed("the public key given is a private key: give the .pub file, then upload the private half")
    if len(text.splitlines()) != 1 or len(text) > LARGEST:
        raise KeyMalformed("the public key is not one line: give one OpenSSH line such as `ssh-ed25519 AAAA…`")
    try:
        key = asyncssh.import_public_key(text)
        algorithm, blob = key.export_public_key().decode().split()[:2]
    except UNREADABLE:
        raise KeyMalformed("the public key cannot be read: give one OpenSSH line such as `ssh-ed25519 AAAA…`") from None
    if _type_of(key) not in ALGORITHMS:
        raise KeyMalformed(f"the public key is of type {_type_of(key)}: give one of {', '.join(ALGORITHMS)}")
    return PublicHalf(f"{algorithm} {blob}")


def canonical(fingerprint: str) -> str:
    """One spelling for a fingerprint of any of the known forms. Raises KeyMalformed for another."""
    if match := COLON_HEX.fullmatch(fingerprint):
        return (match[1] or match[2]).lower()
    if match := BASE64_SHA256.fullmatch(fingerprint):
        return f"SHA256:{match[1]}"
    raise KeyMalformed(
        "the fingerprint cannot be read: give SHA256:… as ssh-keygen -l shows it, or the cloud's own "
        "(MD5 or SHA-1 as hex pairs with colons, or SHA-256 in base64)"
    )


def _refuse_impostors(text: bytes) -> None:
    if not text:
        raise KeyMalformed(f"the private key is empty: {WANTED}")
    for pattern, what, remedy in IMPOSTORS:
        if re.search(pattern, text) and b"PRIVATE KEY-----" not in text:
            raise KeyMalformed(f"what was given is {what}, not a private key: {remedy}")


def _unreadable(text: bytes, passphrase: str, error: Exception) -> KeyMalformed:
    if "Passphrase must be specified" in str(error):
        return KeyMalformed("the private key is encrypted: give its passphrase too")
    if passphrase and (isinstance(error, asyncssh.KeyEncryptionError) or b"ENCRYPTED" in text):
        return KeyMalformed("the passphrase does not open the private key: give the right one")
    if b"-----BEGIN" in text:
        return KeyMalformed(f"the private key is cut short or damaged: {WANTED}, with its BEGIN and END lines")
    return KeyMalformed(f"what was given is no key that can be read: {WANTED}")


def _type_of(key: asyncssh.SSHKey) -> str:
    return key.get_algorithm()


def _colon_hex(digest: bytes) -> str:
    return digest.hex(":")


def _colon_md5(data: bytes) -> str:
    return _colon_hex(hashlib.md5(data, usedforsecurity=False).digest())
