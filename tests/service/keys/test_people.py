"""People and the tokens they present."""

import stat
from pathlib import Path

import pytest

from tests.peers.authority import Certificates
from tests.peers.keys import keys_settings, running_keys
from tests.peers.serving import Served
from twinline.keys.v1 import people_pb2 as pb
from twinline.keys.v1 import people_pb2_grpc as rpc
from twinline_keys import app
from twinline_keys.errors import TokenUnknown
from twinline_kit.secret_files import SecretFileUnusable

ROLES = {"admin": pb.ROLE_ADMIN, "observer": pb.ROLE_OBSERVER}


@pytest.mark.parametrize("name", ROLES)
async def test_a_person_is_told_who_they_are(keys: Served, name: str) -> None:
    people = rpc.PeopleServiceStub(keys.as_person(name))
    assert await people.WhoAmI(pb.WhoAmIRequest()) == pb.Person(name=name, role=ROLES[name])


@pytest.mark.parametrize("name", ROLES)
async def test_a_service_is_told_whose_token_it_got(keys: Served, name: str) -> None:
    people = rpc.PeopleServiceStub(keys.as_service("launcher"))
    answer = await people.Authenticate(pb.AuthenticateRequest(token=keys.people[name]))
    assert answer == pb.Person(name=name, role=ROLES[name])


async def test_a_token_of_nobody_is_unknown(keys: Served) -> None:
    people = rpc.PeopleServiceStub(keys.as_service("launcher"))
    for token in ("", "x" * 43):
        with pytest.raises(TokenUnknown, match="nobody has this token"):
            await people.Authenticate(pb.AuthenticateRequest(token=token))


async def test_tokens_are_made_once_for_their_owner_alone(authority: Certificates, tmp_path: Path) -> None:
    tokens = []
    for database in ("first", "second"):
        async with running_keys(authority, tmp_path, f"sqlite:///{tmp_path / database}") as served:
            assert await rpc.PeopleServiceStub(served.as_person("admin")).WhoAmI(pb.WhoAmIRequest())
            tokens.append(dict(served.people))
    assert tokens[0] == tokens[1]
    assert len(set(tokens[0].values())) == 2
    for name in ROLES:
        assert stat.S_IMODE((tmp_path / f"{name}.token").stat().st_mode) == 0o600


async def test_a_new_token_file_withdraws_the_old_token(
    authority: Certificates, tmp_path: Path, database_url: str
) -> None:
    async with running_keys(authority, tmp_path, database_url) as served:
        old = served.people["admin"]
    (tmp_path / "admin.token").unlink()
    async with running_keys(authority, tmp_path, database_url) as served:
        assert await rpc.PeopleServiceStub(served.as_person("admin")).WhoAmI(pb.WhoAmIRequest())
        with pytest.raises(TokenUnknown):
            await rpc.PeopleServiceStub(served.with_token(old)).WhoAmI(pb.WhoAmIRequest())


@pytest.mark.parametrize(("token", "says"), [("guessable", "shorter than 32 characters"), ("x" * 43, "the same token")])
async def test_a_token_file_that_protects_nothing_is_refused(
    authority: Certificates, tmp_path: Path, token: str, says: str
) -> None:
    settings = keys_settings(authority, tmp_path)
    for path in (settings.admin_token_file, settings.observer_token_file):
        path.touch(mode=0o600)
        path.write_text(token)
    with pytest.raises(SecretFileUnusable, match=says):
        async with app.build(settings):
            pass
