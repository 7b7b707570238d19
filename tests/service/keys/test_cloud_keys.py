"""Cloud keys: made here, registered, completed, used and deleted."""

import asyncio
import uuid

import pytest

from tests.peers.key_files import cloud_fingerprint, new_key_file, rsa_key_file, verify
from tests.service.keys.conftest import CloudKeys
from twinline.keys.v1 import cloud_keys_pb2 as pb
from twinline_keys.errors import (
    KeyExists,
    KeyMalformed,
    KeyMaterialMismatch,
    KeyMaterialMissing,
    KeyNotFound,
    SignatureAlgorithmUnsupported,
)
from twinline_kit.errors import InvalidArgument

DATA = b"what the SSH protocol wants signed"


async def test_a_key_made_here_can_sign_at_once(admin: CloudKeys, executor: CloudKeys) -> None:
    made = await admin.CreateCloudKey(pb.CreateCloudKeyRequest(name="web"))
    assert made.has_material
    assert made.public_key.startswith("ssh-ed25519 AAAA")
    assert made.fingerprint.startswith("SHA256:")
    assert made.material_time == made.create_time
    by_name, by_id = await sign(executor, "web"), await sign(executor, made.id)
    assert by_name == by_id != b""


async def test_an_imported_key_cannot_sign_until_its_private_half_comes(admin: CloudKeys, executor: CloudKeys) -> None:
    file = new_key_file()
    imported = await admin.ImportCloudKey(pb.ImportCloudKeyRequest(name="old", public_key=file.public))
    assert (imported.has_material, imported.fingerprint) == (False, file.fingerprint)
    with pytest.raises(KeyMaterialMissing, match="private half of old is not here: upload"):
        await sign(executor, "old")
    completed = await upload(admin, "old", file.private())
    assert completed.has_material
    assert completed.id == imported.id
    verify(file, "ssh-ed25519", await sign(executor, "old"), DATA)


@pytest.mark.parametrize("form", ["sha256", "sha256-padded", "md5-der", "md5-upper", "sha1-private"])
async def test_a_key_known_by_fingerprint_alone_learns_its_public_half(
    admin: CloudKeys, executor: CloudKeys, form: str
) -> None:
    file = rsa_key_file()
    registered = cloud_fingerprint(file, form)
    imported = await admin.ImportCloudKey(pb.ImportCloudKeyRequest(name="old", fingerprint=f" {registered} "))
    assert (imported.public_key, imported.fingerprint) == ("", registered)
    completed = await upload(admin, "old", file.private("pkcs1-pem"))
    assert (completed.public_key, completed.fingerprint) == (file.public.rpartition(" ")[0], file.fingerprint)
    verify(file, "rsa-sha2-256", await sign(executor, "old", "rsa-sha2-256"), DATA)


@pytest.mark.parametrize("form", ["sha256", "md5-der", "sha1-private"])
async def test_the_wrong_private_half_is_refused_and_not_kept(admin: CloudKeys, executor: CloudKeys, form: str) -> None:
    registered, other = cloud_fingerprint(rsa_key_file(), form), new_key_file()
    before = await admin.ImportCloudKey(pb.ImportCloudKeyRequest(name="old", fingerprint=registered))
    with pytest.raises(KeyMaterialMismatch) as refused:
        await upload(admin, "old", other.private())
    assert refused.value.metadata["expected"] == registered in refused.value.message
    assert refused.value.metadata["given"] in refused.value.message
    assert await admin.GetCloudKey(pb.GetCloudKeyRequest(key="old")) == before
    with pytest.raises(KeyMaterialMissing):
        await sign(executor, "old")


async def test_the_same_private_half_may_come_twice(admin: CloudKeys) -> None:
    file = new_key_file()
    await admin.ImportCloudKey(pb.ImportCloudKeyRequest(name="old", public_key=file.public))
    first = await upload(admin, "old", file.private())
    assert await upload(admin, "old", file.private(passphrase="x"), "x") == first
    both = await asyncio.gather(*(upload(admin, first.id, file.private()) for _ in range(5)))
    assert both == [first] * 5


async def test_another_private_half_never_replaces_the_first(admin: CloudKeys) -> None:
    made = await admin.CreateCloudKey(pb.CreateCloudKeyRequest(name="web"))
    with pytest.raises(KeyMaterialMismatch):
        await upload(admin, "web", new_key_file().private())
    assert await admin.GetCloudKey(pb.GetCloudKeyRequest(key="web")) == made


@pytest.mark.parametrize(
    ("private", "passphrase", "says"),
    [
        (new_key_file().public.encode(), "", "is a public key"),
        (b"nonsense", "", "no key that can be read"),
        (new_key_file().private(passphrase="x"), "", "give its passphrase"),
        (new_key_file().private(passphrase="x"), "y", "passphrase does not open"),
    ],
    ids=["public", "nonsense", "encrypted", "wrong-passphrase"],
)
async def test_what_is_no_private_key_is_refused(admin: CloudKeys, private: bytes, passphrase: str, says: str) -> None:
    await admin.ImportCloudKey(pb.ImportCloudKeyRequest(name="old", public_key=new_key_file().public))
    with pytest.raises(KeyMalformed, match=says):
        await upload(admin, "old", private, passphrase)


@pytest.mark.parametrize(
    ("public_key", "registered", "says"),
    [
        ("", "", "both empty"),
        ("ssh-rsa AAAA", "", "public key cannot be read"),
        ("", "aa:bb", "fingerprint cannot be read"),
        (new_key_file().public, new_key_file().fingerprint, "is not that of the public key"),
    ],
    ids=["nothing", "cut", "no-fingerprint", "two-keys"],
)
async def test_what_names_no_key_is_not_imported(admin: CloudKeys, public_key: str, registered: str, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        await admin.ImportCloudKey(pb.ImportCloudKeyRequest(name="x", public_key=public_key, fingerprint=registered))
    assert not (await admin.ListCloudKeys(pb.ListCloudKeysRequest())).cloud_keys


async def test_a_name_that_would_confuse_is_refused(admin: CloudKeys) -> None:
    for name in ["", " web", "a b/../c", "../c", "-web", "x" * 129, "näme", "a\nb", "key-0123456789abcdef"]:
        with pytest.raises(InvalidArgument, match="name of a key"):
            await admin.CreateCloudKey(pb.CreateCloudKeyRequest(name=name))


async def test_a_name_is_given_once(admin: CloudKeys) -> None:
    await admin.CreateCloudKey(pb.CreateCloudKeyRequest(name="web"))
    with pytest.raises(KeyExists, match="a cloud key named web exists"):
        await admin.CreateCloudKey(pb.CreateCloudKeyRequest(name="web"))
    with pytest.raises(KeyExists):
        await admin.ImportCloudKey(pb.ImportCloudKeyRequest(name="web", public_key=new_key_file().public))


async def test_twenty_repeats_at_once_make_one_key(admin: CloudKeys) -> None:
    request = pb.CreateCloudKeyRequest(name="web", request_id=str(uuid.uuid4()))
    made = await asyncio.gather(*(admin.CreateCloudKey(request) for _ in range(20)))
    assert made == [made[0]] * 20
    assert list((await admin.ListCloudKeys(pb.ListCloudKeysRequest())).cloud_keys) == [made[0]]


async def test_a_repeated_import_returns_the_first_result(admin: CloudKeys) -> None:
    request = pb.ImportCloudKeyRequest(name="old", public_key=new_key_file().public, request_id=str(uuid.uuid4()))
    made = await asyncio.gather(*(admin.ImportCloudKey(request) for _ in range(20)))
    assert made == [made[0]] * 20


async def test_of_twenty_who_want_a_name_one_gets_it(admin: CloudKeys) -> None:
    requests = [pb.CreateCloudKeyRequest(name="web", request_id=str(uuid.uuid4())) for _ in range(20)]
    results = await asyncio.gather(*map(admin.CreateCloudKey, requests), return_exceptions=True)
    assert sum(isinstance(result, pb.CloudKey) for result in results) == 1
    assert sum(isinstance(result, KeyExists) for result in results) == 19


async def test_a_request_id_is_not_for_two_requests(admin: CloudKeys) -> None:
    first = pb.CreateCloudKeyRequest(name="web", request_id=str(uuid.uuid4()))
    await admin.CreateCloudKey(first)
    with pytest.raises(InvalidArgument, match="request_id was used before, for key web"):
        await admin.CreateCloudKey(pb.CreateCloudKeyRequest(name="db", request_id=first.request_id))
    with pytest.raises(InvalidArgument, match="request_id must be printable"):
        await admin.CreateCloudKey(pb.CreateCloudKeyRequest(name="db", request_id="x" * 129))


async def test_a_deleted_key_signs_no_more_and_its_name_is_free_for_another(
    admin: CloudKeys, executor: CloudKeys
) -> None:
    first = await admin.CreateCloudKey(pb.CreateCloudKeyRequest(name="web"))
    await admin.DeleteCloudKey(pb.DeleteCloudKeyRequest(key="web"))
    second = await admin.CreateCloudKey(pb.CreateCloudKeyRequest(name="web"))
    assert first.id != second.id
    with pytest.raises(KeyNotFound, match=f"no cloud key {first.id}"):
        await sign(executor, first.id)
    with pytest.raises(KeyNotFound):
        await admin.DeleteCloudKey(pb.DeleteCloudKeyRequest(key=first.id))


async def test_keys_are_listed_by_name_page_by_page(admin: CloudKeys) -> None:
    names = [f"key-{letter}" for letter in "edcba"]
    for name in names:
        await admin.CreateCloudKey(pb.CreateCloudKeyRequest(name=name))
    pages: list[list[str]] = []
    token = ""
    while not pages or token:
        page = await admin.ListCloudKeys(pb.ListCloudKeysRequest(page_size=2, page_token=token))
        pages.append([key.name for key in page.cloud_keys])
        token = page.next_page_token
    assert pages == [["key-a", "key-b"], ["key-c", "key-d"], ["key-e"]]


async def test_a_full_last_page_is_followed_by_none(admin: CloudKeys) -> None:
    await admin.CreateCloudKey(pb.CreateCloudKeyRequest(name="web"))
    page = await admin.ListCloudKeys(pb.ListCloudKeysRequest(page_size=1))
    assert (len(page.cloud_keys), page.next_page_token) == (1, "")


async def test_a_signature_that_cannot_be_made_is_refused(admin: CloudKeys, executor: CloudKeys) -> None:
    await admin.CreateCloudKey(pb.CreateCloudKeyRequest(name="web"))
    with pytest.raises(SignatureAlgorithmUnsupported, match="ask for ssh-ed25519"):
        await sign(executor, "web", "rsa-sha2-512")
    for data in (b"", b"x" * (64 * 1024 + 1)):
        with pytest.raises(InvalidArgument, match="data must be 1 to 65536 bytes"):
            await executor.Sign(pb.SignRequest(key="web", data=data, algorithm="ssh-ed25519"))


@pytest.mark.parametrize("key", ["web", "key-0123456789abcdef"])
async def test_an_unknown_key_is_not_found(executor: CloudKeys, key: str) -> None:
    with pytest.raises(KeyNotFound, match=f"no cloud key {key}"):
        await executor.GetCloudKey(pb.GetCloudKeyRequest(key=key))


async def upload(admin: CloudKeys, key: str, private: bytes, passphrase: str = "") -> pb.CloudKey:
    return await admin.UploadCloudKeyMaterial(
        pb.UploadCloudKeyMaterialRequest(key=key, private_key=private, passphrase=passphrase)
    )


async def sign(executor: CloudKeys, key: str, algorithm: str = "ssh-ed25519") -> bytes:
    return (await executor.Sign(pb.SignRequest(key=key, data=DATA, algorithm=algorithm))).signature
