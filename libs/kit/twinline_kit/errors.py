"""One error tree for all services, and its passage over the wire.

A handler raises a subclass of `Error`; the server's interceptor turns it into a status (canonical code,
`google.rpc.ErrorInfo` and violations in the details); the client's channel turns that back into the same class,
found by its reason. So `except KeyInUse` works in another process.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped, unused-ignore]
from grpc import StatusCode
from grpc_status import rpc_status  # type: ignore[import-untyped, unused-ignore]

DOMAIN = "twinline"
"""Marks the ErrorInfo of our own errors."""

DETAILS_KEY = "grpc-status-details-bin"
"""Where a status' details travel: the standard trailer."""

REASON_KEY = "twinline-reason"
"""The reason once more, as plain text: agents do without the packages that read details."""

# What grpc.aio reports, instead of the peer's status, when a stream ends while a message is being written.
_BROKEN_WRITE = "Internal error from Core"

_MAX_TEXT = 2_000
_MAX_VIOLATIONS_BYTES = 16_384  # all details travel in one header, and peers refuse big ones

M = TypeVar("M", bound=Message)

_registry: dict[str, type["Error"]] = {}


@dataclass(frozen=True)
class Violation:
    """One of several things that stand in the way: what kind, of what, and a sentence."""

    reason: str
    subject: str
    message: str


class Error(Exception):
    """An expected failure. Subclass one of the canonical classes below and give it a `reason` of its own."""

    code: ClassVar[StatusCode] = StatusCode.INTERNAL
    reason: str = "INTERNAL"

    is_ours: bool = True
    """False when no service of ours raised it: the transport did, or a program that is not Twinline."""

    message: str
    metadata: dict[str, str]
    violations: tuple[Violation, ...]

    def __init__(self, message: str, /, *, violations: Iterable[Violation] = (), **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = {key: str(value) for key, value in metadata.items()}
        self.violations = tuple(violations)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "reason" not in cls.__dict__:
            return
        known = _registry.get(cls.reason)
        if known and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(
                f"reason {cls.reason} of {cls.__qualname__} is taken by {known.__module__}.{known.__qualname__}"
            )
        _registry[cls.reason] = cls

    def __str__(self) -> str:
        return self.message


class InvalidArgument(Error):
    """The call itself is wrong: fix it."""

    code = StatusCode.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


class NotFound(Error):
    """The named thing does not exist."""

    code = StatusCode.NOT_FOUND
    reason = "NOT_FOUND"


class AlreadyExists(Error):
    """The name is taken."""

    code = StatusCode.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class FailedPrecondition(Error):
    """Something must be changed first; a retry alone does not help."""

    code = StatusCode.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"


class Conflict(Error):
    """Somebody else was faster: read again, then retry."""

    code = StatusCode.ABORTED
    reason = "CONFLICT"


class Unavailable(Error):
    """Nobody answers right now: back off, then retry."""

    code = StatusCode.UNAVAILABLE
    reason = "UNAVAILABLE"


class ResourceExhausted(Error):
    """Too much or too fast: slow down."""

    code = StatusCode.RESOURCE_EXHAUSTED
    reason = "RESOURCE_EXHAUSTED"


class Unauthenticated(Error):
    """The caller did not show who it is."""

    code = StatusCode.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDenied(Error):
    """The caller is known, and may not."""

    code = StatusCode.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class DeadlineExceeded(Error):
    """The answer did not come in time; what was asked may have happened."""

    code = StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class Unimplemented(Error):
    """The peer does not know the method: it is of another version."""

    code = StatusCode.UNIMPLEMENTED
    reason = "UNIMPLEMENTED"


class Internal(Error):
    """A bug on the other side; its log has the trace id named in the message."""

    code = StatusCode.INTERNAL
    reason = "INTERNAL"


_BY_CODE: dict[StatusCode, type[Error]] = {
    **{cls.code: cls for cls in (InvalidArgument, NotFound, AlreadyExists, FailedPrecondition, Conflict, Unavailable)},
    **{cls.code: cls for cls in (ResourceExhausted, Unauthenticated, PermissionDenied, DeadlineExceeded)},
    **{cls.code: cls for cls in (Unimplemented, Internal)},
    StatusCode.OUT_OF_RANGE: InvalidArgument,
    # The peer gave the call up (it sheds load or stops): nothing was wrong with the call.
    StatusCode.CANCELLED: Unavailable,
}


def registered() -> dict[str, type[Error]]:
    """Every reason known to this process and its class."""
    return dict(_registry)


def to_status(error: Error) -> grpc.Status:
    """The status that carries `error`: code, message, ErrorInfo, and the violations as far as they fit."""
    message = error.message[:_MAX_TEXT]
    metadata = {key: value[:_MAX_TEXT] for key, value in error.metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    status = status_pb2.Status(code=error.code.value[0], message=message)
    status.details.add().Pack(info)
    if error.violations:
        status.details.add().Pack(_violations_message(error))
    packed: Any = rpc_status.to_status(status)
    trailers = (*packed.trailing_metadata, (REASON_KEY, error.reason))
    plain: grpc.Status = packed._replace(trailing_metadata=trailers)
    return plain


def from_rpc_error(error: grpc.RpcError, method: str = "") -> Error:
    """The error a failed call of `method` stands for: the very class that was raised when we know its reason, else one
    by code."""
    code, text = error.code(), error.details() or ""
    details = _details(error)
    info = _find(details, error_details_pb2.ErrorInfo())
    if info is None or info.domain != DOMAIN:
        foreign = _foreign(code, text, method)
        foreign.is_ours = False
        return foreign
    known = _registry.get(info.reason)
    made_by = known if known and known.code is code else _BY_CODE.get(code, Internal)
    return _rebuild(made_by, info.reason, text, dict(info.metadata), _violations(details))


def _foreign(code: StatusCode, text: str, method: str) -> Error:
    if code is StatusCode.INTERNAL and text == _BROKEN_WRITE:
        return Unavailable("the stream broke while we wrote to it")
    if code is StatusCode.UNIMPLEMENTED and method:
        return Unimplemented(f"the peer has no {method}", method=method)
    return _BY_CODE.get(code, Internal)(text or f"the peer answered {code.name}")


def _rebuild(
    cls: type[Error], reason: str, message: str, metadata: dict[str, str], violations: tuple[Violation, ...]
) -> Error:
    # Around the subclass' own __init__, which may take other arguments.
    error = cls.__new__(cls)
    Error.__init__(error, message, violations=violations)
    error.metadata = metadata
    error.reason = reason
    return error


def _violations_message(error: Error) -> error_details_pb2.BadRequest | error_details_pb2.PreconditionFailure:
    bad, failed = (error_details_pb2.BadRequest(), error_details_pb2.PreconditionFailure())
    room = _MAX_VIOLATIONS_BYTES
    for each in error.violations:
        text = each.message[:_MAX_TEXT]
        room -= len(each.reason) + len(each.subject) + len(text.encode()) + 12
        if room < 0:
            break
        if isinstance(error, InvalidArgument):
            bad.field_violations.add(field=each.subject, description=text, reason=each.reason)
        else:
            failed.violations.add(type=each.reason, subject=each.subject, description=text)
    return bad if isinstance(error, InvalidArgument) else failed


def _violations(details: Iterable[AnyMessage]) -> tuple[Violation, ...]:
    if bad := _find(details, error_details_pb2.BadRequest()):
        return tuple(Violation(v.reason, v.field, v.description) for v in bad.field_violations)
    if failed := _find(details, error_details_pb2.PreconditionFailure()):
        return tuple(Violation(v.type, v.subject, v.description) for v in failed.violations)
    return ()


def _find(details: Iterable[AnyMessage], into: M) -> M | None:
    for detail in details:
        if detail.Unpack(into):
            return into
    return None


def _details(error: grpc.RpcError) -> list[AnyMessage]:
    # Iterates as pairs on the sync and the async side alike, whatever the stubs say.
    trailers: Iterable[tuple[str, str | bytes]] = cast(Any, error.trailing_metadata()) or ()
    packed = next((value for key, value in trailers if key == DETAILS_KEY), b"")
    try:
        return list(status_pb2.Status.FromString(packed).details)
    except (DecodeError, TypeError):
        return []
