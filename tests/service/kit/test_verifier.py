"""Tokens resolved by a keys service, and remembered for a while."""

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from tests.peers.authority import Certificates
from tests.service.kit.conftest import ANYWHERE, Keep
from tests.service.kit.echo import People
from twinline.keys.v1 import people_pb2 as pb
from twinline.keys.v1 import people_pb2_grpc as rpc
from twinline_kit.auth import Grant
from twinline_kit.client import mesh_channel
from twinline_kit.errors import Unauthenticated, Unavailable
from twinline_kit.server import Bound, Service, serving
from twinline_kit.verifier import KeysVerifier

SERVICE = "twinline.keys.v1.PeopleService"


class Keys(rpc.PeopleServiceServicer):
    """Knows one admin, and counts questions."""

    def __init__(self) -> None:
        self.asked = 0

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Any) -> pb.Person:
        raise Unauthenticated("not asked here")

    async def Authenticate(self, request: pb.AuthenticateRequest, context: Any) -> pb.Person:
        self.asked += 1
        if request.token != "good":
            raise Unauthenticated("no such token")
        return pb.Person(name="ada", role=pb.ROLE_ADMIN)


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
async def people(keys: Keys, authority: Certificates) -> AsyncIterator[Bound]:
    def register(server: grpc.aio.Server) -> None:
        rpc.add_PeopleServiceServicer_to_server(keys, server)

    service = Service(SERVICE, register, {f"/{SERVICE}/Authenticate": frozenset({Grant.EXECUTOR})})
    async with serving(ANYWHERE, [service], identity=authority.service("keys"), verifier=People(), grace=0) as bound:
        yield bound


class Time:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_an_answer_is_remembered_for_a_while(
    keys: Keys, people: Bound, authority: Certificates, keep: Keep
) -> None:
    time = Time()
    verifier = KeysVerifier(keep(mesh_channel(people.mesh, authority.service("executor"))), monotonic=time)
    for _ in range(3):
        caller = await verifier.verify("good")
    assert str(caller) == "person ada"
    assert caller.grants == {Grant.ADMIN, Grant.OBSERVER}
    assert keys.asked == 1
    time.now += 31
    await verifier.verify("good")
    assert keys.asked == 2


async def test_an_unknown_token_is_unauthenticated(people: Bound, authority: Certificates, keep: Keep) -> None:
    verifier = KeysVerifier(keep(mesh_channel(people.mesh, authority.service("executor"))))
    with pytest.raises(Unauthenticated, match="no such token"):
        await verifier.verify("bad")


async def test_what_keys_has_against_us_is_not_the_callers_fault(
    people: Bound, authority: Certificates, keep: Keep
) -> None:
    verifier = KeysVerifier(keep(mesh_channel(people.mesh, authority.service("launcher"))))
    with pytest.raises(Unavailable, match="cannot check tokens now"):
        await verifier.verify("good")
