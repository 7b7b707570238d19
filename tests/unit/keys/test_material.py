"""Reading, telling apart and using key material."""

import base64
import contextlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.peers.key_files import KINDS, cloud_fingerprint, key_file, new_key_file, rsa_key_file, verify
from twinline_keys.errors import KeyMalformed, KeyMaterialMismatch, SignatureAlgorithmUnsupported
from twinline_keys.material import ALGORITHMS, PrivateHalf, canonical, parse_public

FILES = {kind: key_file(kind) for kind in KINDS}
LINE = FILES["ssh-ed25519"].public
DATA = b"what the SSH protocol wants signed"


@pytest.mark.parametrize("kind", KINDS)
def test_a_private_key_file_of_each_kind_gives_its_public_half(kind: str) -> None:
    file = key_file(kind)
    assert PrivateHalf.parse(file.private()).public == parse_public(file.public)
    assert PrivateHalf.parse(file.private()).public.fingerprint == file.fingerprint


@pytest.mark.parametrize("form", ["openssh", "pkcs1-pem", "pkcs8-pem"])
@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_each_form_of_file_is_read_with_windows_line_ends_and_text_around_it(form: str, passphrase: str | None) -> None:
    file = rsa_key_file()
    data = b"\xef\xbb\xbf\r\n" + file.private(form, passphrase).replace(b"\n", b"\r\n") + b"\r\n\r\n"
    assert PrivateHalf.parse(data, passphrase or "").public.fingerprint == file.fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_verifies_with_the_public_half_in_another_library(kind: str) -> None:
    file = key_file(kind)
    private = PrivateHalf.load(PrivateHalf.parse(file.private()).dump())
    for algorithm in ALGORITHMS[kind]:
        verify(file, algorithm, private.sign(DATA, algorithm), DATA)


@pytest.mark.parametrize("algorithm", ["ssh-rsa", "ssh-ed25519", "", "rsa-sha2-512-cert-v01@openssh.com"])
def test_an_algorithm_that_the_key_has_not_is_refused_with_those_it_has(algorithm: str) -> None:
    with pytest.raises(SignatureAlgorithmUnsupported, match="ask for rsa-sha2-512 or rsa-sha2-256"):
        PrivateHalf.parse(rsa_key_file().private()).sign(DATA, algorithm)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "is empty: give the private key file", id="nothing"),
        pytest.param(b"not a key at all", "no key that can be read: give the private key file", id="prose"),
        pytest.param(
            new_key_file().public.encode(), "is a public key, not a private key: .* without .pub", id="public"
        ),
        pytest.param(
            b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "is a public key, not a private key",
            id="public-pem",
        ),
        pytest.param(
            b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n", "is a public key, not a private key", id="public-ssh2"
        ),
        pytest.param(
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "is a certificate, not a private key",
            id="certificate",
        ),
        pytest.param(
            b"ssh-ed25519-cert-v01@openssh.com AAAA",
            "is an OpenSSH certificate, not a private key",
            id="ssh-certificate",
        ),
        pytest.param(
            b"PuTTY-User-Key-File-3: ssh-ed25519\n",
            "is a PuTTY key, not a private key: convert it with puttygen",
            id="putty",
        ),
        pytest.param(new_key_file().private()[:150], "is cut short or damaged: .* BEGIN and END lines", id="cut"),
        pytest.param(b"-----BEGIN (PRIVATE KEY-----\nAAAA\n", "is cut short or damaged", id="odd-header"),
        pytest.param(bytes(range(256)), "no key that can be read", id="bytes"),
        pytest.param(b"x" * 70_000, "is 70000 bytes, more than any key", id="huge"),
        pytest.param(
            new_key_file().private(passphrase="x"), "is encrypted: give its passphrase too", id="encrypted-openssh"
        ),
        pytest.param(
            rsa_key_file().private("pkcs8-pem", "x"), "is encrypted: give its passphrase too", id="encrypted-pem"
        ),
    ],
)
def test_what_is_no_private_key_is_called_by_its_name(content: bytes, says: str) -> None:
    with pytest.raises(KeyMalformed, match=says):
        PrivateHalf.parse(content)


@pytest.mark.parametrize("form", ["openssh", "pkcs1-pem", "pkcs8-pem"])
def test_a_wrong_passphrase_is_told_from_a_damaged_file(form: str) -> None:
    with pytest.raises(KeyMalformed, match="passphrase does not open"):
        PrivateHalf.parse(rsa_key_file().private(form, "right"), "wrong")


def test_a_key_of_a_kind_that_servers_refuse_is_not_taken() -> None:
    pem = ec.generate_private_key(ec.SECP256K1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(KeyMalformed, match="give one of ssh-ed25519, ssh-rsa"):
        PrivateHalf.parse(pem)


@pytest.mark.parametrize("text", ["", "ssh-ed25519 AAAA", f"{LINE}\n{LINE}"], ids=["nothing", "cut", "two"])
def test_what_is_no_public_key_line_is_refused(text: str) -> None:
    with pytest.raises(KeyMalformed, match="give one OpenSSH line"):
        parse_public(text)


def test_a_private_key_is_not_taken_for_a_public_one() -> None:
    with pytest.raises(KeyMalformed, match="is a private key"):
        parse_public(new_key_file().private().decode())


@pytest.mark.parametrize("form", ["sha256", "sha256-padded", "md5-der", "md5-ssh", "md5-upper", "sha1-private"])
def test_each_form_of_fingerprint_names_its_key_and_no_other(form: str) -> None:
    registered = cloud_fingerprint(rsa_key_file(), form)
    PrivateHalf.parse(rsa_key_file().private()).must_be("web", registered)
    with pytest.raises(KeyMaterialMismatch) as refused:
        PrivateHalf.parse(new_key_file().private()).must_be("web", registered)
    assert refused.value.metadata["expected"] == registered in str(refused.value)
    assert refused.value.metadata["given"] in str(refused.value)
    assert len(canonical(refused.value.metadata["given"])) == len(canonical(registered))


@pytest.mark.parametrize(
    "text", ["", "SHA256:short", "aa:bb", "zz" + ":zz" * 15, "aa" + ":aa" * 16, "MD5:" + "aa:" * 20]
)
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(KeyMalformed, match="fingerprint cannot be read"):
        canonical(text)


def test_a_private_half_never_shows_itself() -> None:
    private = PrivateHalf.generate()
    assert repr(private) == str(private) == f"<PrivateHalf of {private.public.fingerprint}>"


DAMAGES = st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 255)), min_size=1, max_size=4)


@settings(deadline=None)
@given(kind=st.sampled_from(KINDS), damages=DAMAGES)
def test_a_damaged_private_key_is_malformed_and_nothing_worse(kind: str, damages: list[tuple[int, int]]) -> None:
    head, *body, foot = FILES[kind].private().splitlines()
    damaged = base64.encodebytes(with_damages(base64.b64decode(b"".join(body)), damages))
    with contextlib.suppress(KeyMalformed):
        PrivateHalf.parse(b"\n".join((head, damaged.strip(), foot)))


@settings(deadline=None)
@given(kind=st.sampled_from(KINDS), damages=DAMAGES)
def test_a_damaged_public_key_is_malformed_and_nothing_worse(kind: str, damages: list[tuple[int, int]]) -> None:
    algorithm, blob, _ = FILES[kind].public.split()
    damaged = base64.b64encode(with_damages(base64.b64decode(blob), damages)).decode()
    with contextlib.suppress(KeyMalformed):
        parse_public(f"{algorithm} {damaged}")


@settings(deadline=None)
@given(text=st.one_of(st.text(max_size=80), st.text(max_size=80).map("ssh-ed25519 {}".format)))
def test_any_text_is_a_public_key_or_malformed(text: str) -> None:
    with contextlib.suppress(KeyMalformed):
        parse_public(text)


def with_damages(content: bytes, damages: list[tuple[int, int]]) -> bytes:
    changed = bytearray(content)
    for position, byte in damages:
        changed[position % len(changed)] = byte
    return bytes(changed)
