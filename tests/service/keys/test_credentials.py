"""Credentials: set, listed by name, opened for the executor alone."""

import asyncio

import pytest

from tests.service.keys.conftest import Credentials
from twinline.keys.v1 import credentials_pb2 as pb
from twinline_keys.errors import CredentialNotFound
from twinline_kit.errors import InvalidArgument


async def test_the_executor_gets_the_latest_values(credentials: Credentials, opener: Credentials) -> None:
    for name, value in (("DB", b"old"), ("DB", b"new"), ("API", bytes(range(256)))):
        await credentials.SetCredential(pb.SetCredentialRequest(name=name, value=value))
    opened = await opener.OpenCredentials(pb.OpenCredentialsRequest(names=["DB", "API", "DB"]))
    assert dict(opened.values) == {"DB": b"new", "API": bytes(range(256))}


async def test_one_unknown_name_refuses_all(credentials: Credentials, opener: Credentials) -> None:
    await credentials.SetCredential(pb.SetCredentialRequest(name="DB", value=b"x"))
    with pytest.raises(CredentialNotFound, match="no credential A, B: set it"):
        await opener.OpenCredentials(pb.OpenCredentialsRequest(names=["B", "DB", "A"]))


async def test_names_are_listed_page_by_page(credentials: Credentials) -> None:
    for name in "bca":
        await credentials.SetCredential(pb.SetCredentialRequest(name=name, value=b"x"))
    first = await credentials.ListCredentials(pb.ListCredentialsRequest(page_size=2))
    second = await credentials.ListCredentials(pb.ListCredentialsRequest(page_token=first.next_page_token))
    assert [each.name for each in (*first.credentials, *second.credentials)] == ["a", "b", "c"]
    assert second.next_page_token == ""


async def test_setting_again_moves_the_time(credentials: Credentials, opener: Credentials) -> None:
    first = await credentials.SetCredential(pb.SetCredentialRequest(name="DB", value=b"x"))
    second = await credentials.SetCredential(pb.SetCredentialRequest(name="DB", value=b"x"))
    assert second.update_time.ToDatetime() > first.update_time.ToDatetime()
    assert list((await credentials.ListCredentials(pb.ListCredentialsRequest())).credentials) == [second]
    opened = await opener.OpenCredentials(pb.OpenCredentialsRequest(names=["DB"]))
    assert opened.update_times["DB"] == second.update_time


async def test_twenty_writers_at_once_leave_one_value(credentials: Credentials, opener: Credentials) -> None:
    values = [f"value {number}".encode() for number in range(20)]
    requests = [pb.SetCredentialRequest(name="DB", value=value) for value in values]
    await asyncio.gather(*map(credentials.SetCredential, requests))
    opened = await opener.OpenCredentials(pb.OpenCredentialsRequest(names=["DB"]))
    assert opened.values["DB"] in values


async def test_a_deleted_credential_is_gone(credentials: Credentials, opener: Credentials) -> None:
    await credentials.SetCredential(pb.SetCredentialRequest(name="DB", value=b"x"))
    await credentials.DeleteCredential(pb.DeleteCredentialRequest(name="DB"))
    with pytest.raises(CredentialNotFound):
        await opener.OpenCredentials(pb.OpenCredentialsRequest(names=["DB"]))
    with pytest.raises(CredentialNotFound):
        await credentials.DeleteCredential(pb.DeleteCredentialRequest(name="DB"))


async def test_a_nul_in_a_name_is_the_caller_s_fault(credentials: Credentials, opener: Credentials) -> None:
    for call in (
        credentials.DeleteCredential(pb.DeleteCredentialRequest(name="a\0")),
        opener.OpenCredentials(pb.OpenCredentialsRequest(names=["DB", "a\0"])),
    ):
        with pytest.raises(InvalidArgument, match="holds a NUL"):
            await call


async def test_what_cannot_be_a_credential_is_refused(credentials: Credentials) -> None:
    names, values = ("", "a b", "x" * 129), (b"", bytes(65_537))
    for name, value in (*((name, b"x") for name in names), *(("DB", value) for value in values)):
        with pytest.raises(InvalidArgument, match="of a credential must be"):
            await credentials.SetCredential(pb.SetCredentialRequest(name=name, value=value))
