"""SSH key files, as people have them."""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from typing import cast

import asyncssh
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

KINDS = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
PrivateKey = ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class KeyFile:
    """A key pair and the files it comes in."""

    key: asyncssh.SSHKey

    @property
    def public(self) -> str:
        """The `.pub` file: one line with a comment."""
        return self.key.export_public_key().decode().strip() + " somebody@laptop"

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`"""
        return self.key.get_fingerprint()

    @property
    def foreign(self) -> PrivateKey:
        """The same key as another library reads it."""
        return cast(PrivateKey, load_ssh_private_key(self.private(), None))

    def private(self, form: str = "openssh", passphrase: str | None = None) -> bytes:
        """The private key file (`openssh`, `pkcs1-pem`, `pkcs8-pem`), encrypted when there is a passphrase."""
        if form == "openssh":
            return self.key.export_private_key(form, passphrase, rounds=50)
        return self.key.export_private_key(form, passphrase)


def new_key_file(kind: str = "ssh-ed25519") -> KeyFile:
    """A new key pair of a kind that is quick to make."""
    return KeyFile(asyncssh.generate_private_key(kind))


@cache
def rsa_key_file() -> KeyFile:
    """An RSA key pair, the same one for the whole session: they take long to make."""
    return KeyFile(asyncssh.generate_private_key("ssh-rsa", key_size=2048))


def key_file(kind: str) -> KeyFile:
    """A key pair of any of KINDS."""
    return rsa_key_file() if kind == "ssh-rsa" else new_key_file(kind)


def cloud_fingerprint(file: KeyFile, form: str) -> str:
    """The fingerprint as clouds and tools print it, computed apart from the code under test."""
    blob = base64.b64decode(file.public.split()[1])
    padded = base64.b64encode(hashlib.sha256(blob).digest()).decode()
    public = file.foreign.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    private = file.foreign.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return {
        "sha256": f"SHA256:{padded.rstrip('=')}",
        "sha256-padded": padded,
        "md5-der": hashlib.md5(public).digest().hex(":"),
        "md5-ssh": f"MD5:{hashlib.md5(blob).digest().hex(':')}",
        "md5-upper": hashlib.md5(public).digest().hex(":").upper(),
        "sha1-private": hashlib.sha1(private).digest().hex(":"),
    }[form]


def verify(file: KeyFile, algorithm: str, signature: bytes, data: bytes) -> None:
    """Check an SSH wire signature without the code under test."""
    name, rest = _ssh_string(signature)
    blob, nothing = _ssh_string(rest)
    assert (name.decode(), nothing) == (algorithm, b"")
    public = file.foreign.public_key()
    if isinstance(public, ed25519.Ed25519PublicKey):
        public.verify(blob, data)
    elif isinstance(public, rsa.RSAPublicKey):
        public.verify(blob, data, padding.PKCS1v15(), hashes.SHA512() if "512" in algorithm else hashes.SHA256())
    else:
        r, rest = _ssh_string(blob)
        s, _ = _ssh_string(rest)
        digest = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[public.curve.key_size]
        der = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
        public.verify(der, data, ec.ECDSA(digest))


def _ssh_string(data: bytes) -> tuple[bytes, bytes]:
    """The first string of SSH wire data, and what follows it."""
    end = 4 + int.from_bytes(data[:4], "big")
    return data[4:end], data[end:]


def clear_forms(file: KeyFile) -> list[bytes]:
    """Every form in which an Ed25519 private half could lie about."""
    der = file.key.export_private_key("pkcs8-der")
    return [der, der[-32:], base64.b64encode(der[-32:]), *file.private().splitlines()[3:-1]]
