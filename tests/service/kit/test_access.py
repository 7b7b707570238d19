"""Who gets through: by token on the API port, by certificate on the mesh port."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.peers.authority import Certificates
from tests.service.kit.conftest import Keep
from tests.service.kit.echo import NAME, SERVICE, Echo
from twinline_kit import auth
from twinline_kit.auth import Grant
from twinline_kit.client import api_channel, mesh_channel
from twinline_kit.errors import Error, PermissionDenied, Unauthenticated, Unavailable, Unimplemented
from twinline_kit.server import Bound
from twinline_kit.tls import Identity

Person = Callable[[str | None], Echo]
Service = Callable[[str], Echo]
ENTITLED = {grant: str(grant) for grant in (Grant.KEYS, Grant.LAUNCHER, Grant.EXECUTOR, Grant.AGENT_GATEWAY)}


async def test_a_person_is_known_by_the_token(person: Person) -> None:
    assert await person("observer-token").say("who") == "person observer"


async def test_an_agent_is_known_by_its_certificate(agent: Echo) -> None:
    assert await agent.say("who") == "agent agent-1"


async def test_an_admin_may_do_what_an_observer_may(admin: Echo) -> None:
    assert await admin.say("hello", method="For_observer") == "hello"


async def test_an_observer_may_not_do_what_an_admin_may(person: Person) -> None:
    with pytest.raises(PermissionDenied, match="person observer may not call"):
        await person("observer-token").say("hello", method="For_admin")


@pytest.mark.parametrize("grant", ENTITLED)
async def test_each_service_has_its_own_grant_and_no_other(service: Service, grant: Grant) -> None:
    assert await service(ENTITLED[grant]).say("who", method=f"For_{grant}") == f"service {grant}"
    for other in set(Grant) - {grant, Grant.ANYONE}:
        with pytest.raises(PermissionDenied):
            await service(ENTITLED[grant]).say("hello", method=f"For_{other}")


@pytest.mark.parametrize("grant", sorted(set(Grant) - {Grant.ANYONE, Grant.AGENT}))
async def test_an_agent_has_no_grant_but_its_own(agent: Echo, grant: Grant) -> None:
    with pytest.raises(PermissionDenied):
        await agent.say("hello", method=f"For_{grant}")


async def test_a_service_of_an_unknown_name_has_no_grant(service: Service) -> None:
    with pytest.raises(PermissionDenied, match="service admin"):
        await service("admin").say("hello", method="For_admin")


async def test_who_shows_nothing_is_unauthenticated(person: Person) -> None:
    with pytest.raises(Unauthenticated, match="bearer token"):
        await person(None).say("hello")


async def test_who_shows_nothing_may_call_what_is_open(person: Person) -> None:
    assert await person(None).say("who", method="Open") == "anonymous"


@pytest.mark.parametrize("token", ["wrong", "x" * 2000])
async def test_a_wrong_token_is_unauthenticated(person: Person, token: str) -> None:
    with pytest.raises(Unauthenticated):
        await person(token).say("hello")


async def test_a_method_in_no_table_is_refused_to_all(admin: Echo) -> None:
    with pytest.raises(PermissionDenied):
        await admin.say("hello", method="Unlisted")


async def test_a_method_nobody_serves_is_unimplemented(admin: Echo) -> None:
    with pytest.raises(Unimplemented, match="the peer has no /.*/Missing"):
        await admin.say("hello", method="Missing")


async def test_streams_are_guarded_too(person: Person) -> None:
    with pytest.raises(Unauthenticated):
        await person(None).chat().read()


async def test_a_token_counts_for_nothing_on_the_mesh_port(bound: Bound, authority: Certificates, keep: Keep) -> None:
    channel = keep(mesh_channel(bound.mesh, authority.agent("agent-1")))
    call: Any = channel.unary_unary(f"/{NAME}/For_admin")
    with pytest.raises(PermissionDenied):
        await call(b"", metadata=[("authorization", "Bearer admin-token")])


async def test_a_certificate_counts_for_nothing_on_the_api_port(
    bound: Bound, authority: Certificates, keep: Keep
) -> None:
    with pytest.raises(Unauthenticated):
        await Echo(keep(mesh_channel(bound.api, authority.agent("agent-1")))).say("hello")


async def test_the_mesh_port_wants_a_certificate(bound: Bound, authority: Certificates, keep: Keep) -> None:
    with pytest.raises(Unavailable):
        await Echo(keep(api_channel(bound.mesh, authority.ca, "admin-token"))).say("hello")


async def test_a_certificate_of_another_authority_is_refused(
    bound: Bound, authority: Certificates, keep: Keep, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = Certificates(tmp_path_factory.mktemp("stranger")).agent("agent-1")
    mixed = Identity(stranger.certificate, stranger.key, authority.ca)
    with pytest.raises(Unavailable):
        await Echo(keep(mesh_channel(bound.mesh, mixed))).say("hello")


async def test_a_server_of_another_authority_is_refused(
    bound: Bound, keep: Keep, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = Certificates(tmp_path_factory.mktemp("stranger"))
    with pytest.raises(Error):
        await Echo(keep(api_channel(bound.api, stranger.ca, "admin-token"))).say("hello")


def test_two_tables_may_not_name_one_method() -> None:
    with pytest.raises(ValueError, match="more than one"):
        auth.merge([SERVICE.access, SERVICE.access])


def test_outside_an_rpc_there_is_no_caller() -> None:
    with pytest.raises(LookupError):
        auth.caller()
