"""What a thief of the database gets, and when the service refuses to run."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.peers.authority import Certificates
from tests.peers.key_files import KeyFile, clear_forms, new_key_file
from tests.peers.keys import keys_settings, running_keys
from tests.peers.serving import Served
from twinline.keys.v1 import cloud_keys_pb2, cloud_keys_pb2_grpc, credentials_pb2, credentials_pb2_grpc
from twinline_keys import app
from twinline_keys.errors import ClearMaterialStored, SealBroken, SealingKeyWrong
from twinline_keys.settings import Settings
from twinline_kit.secret_files import SecretFileUnusable

VALUE = b"the database password that nobody may see"


async def test_a_stolen_database_holds_no_secret_in_clear(authority: Certificates, tmp_path: Path) -> None:
    file, folder = new_key_file(), tmp_path / "keys"
    async with running_keys(authority, folder) as served:
        await fill(served, file)
        stolen = b"".join(path.read_bytes() for path in folder.glob("keys.db*"))
        tokens = [token.encode() for token in served.people.values()]
    assert file.public.split()[1].encode() in stolen
    for secret in (*clear_forms(file), VALUE, b"PRIVATE KEY", *tokens):
        assert secret not in stolen


async def test_what_was_sealed_opens_after_a_restart(
    authority: Certificates, tmp_path: Path, database_url: str
) -> None:
    async with running_keys(authority, tmp_path, database_url) as served:
        await fill(served, new_key_file())
    async with running_keys(authority, tmp_path, database_url) as served:
        opener = credentials_pb2_grpc.CredentialServiceStub(served.as_service("executor"))
        opened = await opener.OpenCredentials(credentials_pb2.OpenCredentialsRequest(names=["DB"]))
        assert opened.values["DB"] == VALUE
        assert await sign(served, "old")


async def test_a_record_copied_over_another_does_not_open(keys: Served, database_url: str) -> None:
    await fill(keys, new_key_file())
    execute(database_url, "UPDATE cloud_keys SET sealed = (SELECT sealed FROM cloud_keys WHERE name = 'web')")
    assert await sign(keys, "web")
    with pytest.raises(SealBroken, match="the sealed cloud-key key-.* does not open"):
        await sign(keys, "old")


async def test_another_sealing_key_refuses_to_start(authority: Certificates, tmp_path: Path, database_url: str) -> None:
    settings = await filled(authority, tmp_path, database_url)
    settings.kek_file.write_bytes(base64.b64encode(bytes(32)))
    with pytest.raises(SealingKeyWrong, match=f"was sealed with another key than the one in {settings.kek_file}"):
        await start(settings)


async def test_a_lost_sealing_key_refuses_to_start_and_is_not_replaced(
    authority: Certificates, tmp_path: Path, database_url: str
) -> None:
    settings = await filled(authority, tmp_path, database_url)
    settings.kek_file.unlink()
    with pytest.raises(SecretFileUnusable, match=f"{settings.kek_file} cannot be read"):
        await start(settings)
    assert not settings.kek_file.exists()


@pytest.mark.parametrize(
    ("table", "clear"), [("cloud_keys", "openssh"), ("cloud_keys", "der"), ("credentials", "sealed-look")]
)
async def test_material_stored_in_clear_refuses_to_start(
    authority: Certificates, tmp_path: Path, database_url: str, table: str, clear: str
) -> None:
    settings = await filled(authority, tmp_path, database_url)
    private = new_key_file().private()
    material = {"openssh": private, "der": clear_forms(new_key_file())[0], "sealed-look": b"\x01" * 200 + private}[
        clear
    ]
    execute(database_url, f"UPDATE {table} SET sealed = :material", material=material)
    with pytest.raises(ClearMaterialStored, match="is stored in clear: .* delete its row and upload a new one"):
        await start(settings)


async def test_a_record_sealed_with_another_key_refuses_to_start(
    authority: Certificates, tmp_path: Path, database_url: str
) -> None:
    settings = await filled(authority, tmp_path, database_url)
    execute(database_url, "UPDATE cloud_keys SET sealed = :sealed", sealed=b"\x01" + os.urandom(200))
    with pytest.raises(SealingKeyWrong, match="the cloud key .* was sealed with another key"):
        await start(settings)


async def test_the_process_says_in_one_line_why_it_does_not_start(authority: Certificates, tmp_path: Path) -> None:
    settings = await filled(authority, tmp_path, "")
    settings.kek_file.write_bytes(base64.b64encode(bytes(32)))
    variables = {f"TWINLINE_KEYS_{name.upper()}": str(value) for name, value in settings}
    ended = subprocess.run(
        [sys.executable, "-m", "twinline_keys"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("twinline keys: the database was sealed with another key")
    assert last.endswith("(SEALING_KEY_WRONG)")


async def filled(authority: Certificates, folder: Path, database_url: str) -> Settings:
    """The settings of a service that ran, stored something and stopped."""
    async with running_keys(authority, folder, database_url) as served:
        await fill(served, new_key_file())
    return keys_settings(authority, folder, database_url)


async def fill(keys: Served, file: KeyFile) -> None:
    admin = cloud_keys_pb2_grpc.CloudKeyServiceStub(keys.as_person("admin"))
    await admin.CreateCloudKey(cloud_keys_pb2.CreateCloudKeyRequest(name="web"))
    await admin.ImportCloudKey(cloud_keys_pb2.ImportCloudKeyRequest(name="old", public_key=file.public))
    upload = cloud_keys_pb2.UploadCloudKeyMaterialRequest(key="old", private_key=file.private())
    await admin.UploadCloudKeyMaterial(upload)
    credentials = credentials_pb2_grpc.CredentialServiceStub(keys.as_person("admin"))
    await credentials.SetCredential(credentials_pb2.SetCredentialRequest(name="DB", value=VALUE))


async def sign(keys: Served, key: str) -> bytes:
    executor = cloud_keys_pb2_grpc.CloudKeyServiceStub(keys.as_service("executor"))
    request = cloud_keys_pb2.SignRequest(key=key, data=b"data", algorithm="ssh-ed25519")
    return (await executor.Sign(request)).signature


async def start(settings: Settings) -> None:
    async with app.build(settings):
        pass


def execute(database_url: str, statement: str, **parameters: bytes) -> None:
    """Change the database behind the service's back."""
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text(statement), parameters)
    engine.dispose()
