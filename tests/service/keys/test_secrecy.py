"""No secret in an answer or in a log line."""

import base64
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from tests.peers.key_files import clear_forms, new_key_file
from tests.peers.keys import keys_settings
from tests.peers.serving import Served
from tests.service.keys.conftest import FILES, CloudKeys, Credentials
from twinline.keys.v1 import cloud_keys_pb2 as pb
from twinline.keys.v1 import credentials_pb2
from twinline_kit.errors import Error
from twinline_kit.logs import JsonFormatter

BYTES_THAT_ARE_ANSWERED = {
    "twinline.keys.v1.SignResponse.signature",
    "twinline.keys.v1.OpenCredentialsResponse.ValuesEntry.value",
    "twinline.keys.v1.SignAgentCertificateResponse.certificate",
}
TEXT_THAT_IS_ANSWERED = {
    "twinline.keys.v1.CloudKey.id",
    "twinline.keys.v1.CloudKey.name",
    "twinline.keys.v1.CloudKey.public_key",
    "twinline.keys.v1.CloudKey.fingerprint",
    "twinline.keys.v1.ListCloudKeysResponse.next_page_token",
    "twinline.keys.v1.Credential.name",
    "twinline.keys.v1.ListCredentialsResponse.next_page_token",
    "twinline.keys.v1.OpenCredentialsResponse.ValuesEntry.key",
    "twinline.keys.v1.OpenCredentialsResponse.UpdateTimesEntry.key",
    "twinline.keys.v1.Person.name",
}
PASSPHRASE, VALUE = "a passphrase to look for", b"a credential to look for"


def test_no_answer_has_room_for_a_private_half() -> None:
    answers = [
        method.output_type for file in FILES for service in file.services_by_name.values() for method in service.methods
    ]
    fields = {field.full_name: field.type for answer in answers for field in all_fields(answer)}
    assert {name for name, kind in fields.items() if kind == FieldDescriptor.TYPE_BYTES} == BYTES_THAT_ARE_ANSWERED
    assert {name for name, kind in fields.items() if kind == FieldDescriptor.TYPE_STRING} == TEXT_THAT_IS_ANSWERED


async def test_neither_answers_nor_log_lines_hold_a_secret(
    admin: CloudKeys,
    executor: CloudKeys,
    credentials: Credentials,
    opener: Credentials,
    keys: Served,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    file, other = new_key_file(), new_key_file()
    answers: list[Message] = [
        await admin.ImportCloudKey(pb.ImportCloudKeyRequest(name="old", public_key=file.public)),
        await upload(admin, other.private(passphrase=PASSPHRASE), PASSPHRASE),
        await upload(admin, other.private(), PASSPHRASE),
        await upload(admin, other.private()[:-60], ""),
        await upload(admin, file.private(passphrase=PASSPHRASE), PASSPHRASE),
        await admin.GetCloudKey(pb.GetCloudKeyRequest(key="old")),
        await admin.ListCloudKeys(pb.ListCloudKeysRequest()),
        await executor.Sign(pb.SignRequest(key="old", data=b"data", algorithm="ssh-ed25519")),
        await credentials.SetCredential(credentials_pb2.SetCredentialRequest(name="DB", value=VALUE)),
        await credentials.ListCredentials(credentials_pb2.ListCredentialsRequest()),
    ]
    await opener.OpenCredentials(credentials_pb2.OpenCredentialsRequest(names=["DB"]))
    said = b"".join(answer.SerializeToString() for answer in answers) + logged(caplog)
    tokens = [token.encode() for token in keys.people.values()]
    for secret in (*clear_forms(file), *clear_forms(other), PASSPHRASE.encode(), VALUE, *tokens):
        assert secret not in said
        assert base64.b64encode(secret) not in said


async def test_who_did_what_is_logged_and_who_was_refused_what(
    admin: CloudKeys, executor: CloudKeys, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await admin.CreateCloudKey(pb.CreateCloudKeyRequest(name="web"))
    await executor.Sign(pb.SignRequest(key="web", data=b"data", algorithm="ssh-ed25519"))
    await upload(admin, new_key_file().private(), "", key="web")
    await admin.DeleteCloudKey(pb.DeleteCloudKeyRequest(key="web"))
    lines = [vars(record) for record in caplog.records if record.name == "twinline_keys.audit"]
    assert [(line["msg"], line["action"], line["caller"], line["key"], line.get("reason")) for line in lines] == [
        ("done", "create cloud key", "person admin", "web", None),
        ("done", "sign", "service executor", "web", None),
        ("refused", "upload cloud key material", "person admin", "web", "KEY_MATERIAL_MISMATCH"),
        ("done", "delete cloud key", "person admin", "web", None),
    ]


def test_settings_show_no_secret(keys: Served, tmp_path: Path) -> None:
    settings = keys_settings(
        keys.certificates, tmp_path / "other", "postgresql://somebody:password-to-look-for@host/db"
    )
    assert "password-to-look-for" not in f"{settings!r} {settings}"


def all_fields(message: Descriptor) -> Iterator[FieldDescriptor]:
    """Every field that a message can hold, at any depth."""
    for field in message.fields:
        yield field
        if field.message_type:
            yield from all_fields(field.message_type)


async def upload(admin: CloudKeys, private: bytes, passphrase: str, key: str = "old") -> Message:
    """What an upload is answered with, be it a refusal."""
    request = pb.UploadCloudKeyMaterialRequest(key=key, private_key=private, passphrase=passphrase)
    try:
        return await admin.UploadCloudKeyMaterial(request)
    except Error as error:
        return pb.CloudKey(name=f"{error.message} {error.metadata} {error.violations}")


def logged(caplog: pytest.LogCaptureFixture) -> bytes:
    """All that was logged, as it is written, and as it was before the formatter hid anything."""
    formatter = JsonFormatter("keys")
    return "\n".join(f"{formatter.format(record)} {vars(record)}" for record in caplog.records).encode()
