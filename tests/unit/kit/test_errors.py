"""The error tree and its statuses."""

import grpc
import grpc.aio
import pytest

from twinline_kit import errors
from twinline_kit.errors import Error, FailedPrecondition, InvalidArgument, NotFound, Violation


class PotMissing(NotFound):
    """No such pot."""

    reason = "TEST_POT_MISSING"


def returned(error: Error, *, code: grpc.StatusCode | None = None) -> Error:
    """The error after a passage over the wire, perhaps with another code."""
    status = errors.to_status(error)
    trailers = grpc.aio.Metadata(*(status.trailing_metadata or ()))
    return errors.from_rpc_error(
        grpc.aio.AioRpcError(code or error.code, grpc.aio.Metadata(), trailers, status.details)
    )


def test_an_error_comes_back_as_itself() -> None:
    error = returned(PotMissing("no pot p1", pot="p1"))
    assert (type(error), str(error), error.metadata) == (PotMissing, "no pot p1", {"pot": "p1"})


@pytest.mark.parametrize("reason", sorted(errors.registered()))
def test_every_reason_leads_back_to_its_class(reason: str) -> None:
    cls = errors.registered()[reason]
    error = cls.__new__(cls)
    Error.__init__(error, "text")
    assert type(returned(error)) is cls


def test_a_reason_we_do_not_know_comes_back_by_its_code() -> None:
    error = PotMissing("no pot")
    error.reason = "OF_A_NEWER_VERSION"
    found = returned(error)
    assert (type(found), found.reason) == (NotFound, "OF_A_NEWER_VERSION")


def test_the_code_wins_over_a_reason_that_moved_to_another_class() -> None:
    found = returned(PotMissing("no pot"), code=grpc.StatusCode.FAILED_PRECONDITION)
    assert (type(found), found.reason) == (FailedPrecondition, "TEST_POT_MISSING")


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_foreign_status_becomes_an_error_of_ours(code: grpc.StatusCode) -> None:
    bare = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "text")
    assert str(errors.from_rpc_error(bare)) == "text"


@pytest.mark.parametrize("trailer", [b"\xff\xff", "text", b""])
def test_details_that_cannot_be_read_are_left_out(trailer: bytes | str) -> None:
    trailers = grpc.aio.Metadata((errors.DETAILS_KEY, trailer))
    status = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), trailers, "gone")
    assert type(errors.from_rpc_error(status)) is NotFound


@pytest.mark.parametrize("cls", [InvalidArgument, FailedPrecondition])
def test_violations_come_back_in_order(cls: type[Error]) -> None:
    violations = (Violation("A", "x", "x is wrong"), Violation("B", "y", "y is wrong"))
    assert returned(cls("two things", violations=violations)).violations == violations


def test_too_many_violations_are_cut_so_that_the_rest_arrives() -> None:
    many = [Violation("LONG", f"field {number}", "x" * 1000) for number in range(1000)]
    error = InvalidArgument("a thousand things", violations=many)
    trailers = dict(errors.to_status(error).trailing_metadata or ())
    assert 0 < len(trailers[errors.DETAILS_KEY]) < 20_000
    assert 10 < len(returned(error).violations) < 20


def test_two_classes_cannot_share_a_reason() -> None:
    with pytest.raises(TypeError, match="TEST_POT_MISSING"):
        type("Other", (NotFound,), {"reason": "TEST_POT_MISSING"})


def test_a_subclass_without_a_reason_keeps_its_parents() -> None:
    class Nameless(PotMissing):
        pass

    assert Nameless.reason == "TEST_POT_MISSING"
    assert errors.registered()["TEST_POT_MISSING"] is PotMissing
