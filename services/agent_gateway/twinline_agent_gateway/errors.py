"""What callers of this service may have to deal with, by reason."""

from twinline_kit.errors import (
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
)


class AgentNotFound(NotFound):
    """No agent has the id."""

    reason = "AGENT_NOT_FOUND"


class AgentUnknown(PermissionDenied):
    """The certificate names an agent that this gateway never prepared."""

    reason = "AGENT_UNKNOWN"


class AgentRevoked(PermissionDenied):
    """The agent was ended for good."""

    reason = "AGENT_REVOKED"


class AgentSilent(DeadlineExceeded):
    """The agent says nothing, or takes nothing that is sent to it."""

    reason = "AGENT_SILENT"


class EnrollmentRefused(PermissionDenied):
    """The token is unknown, expired, revoked, or was spent with another key."""

    reason = "ENROLLMENT_REFUSED"


class EnrollmentUsed(FailedPrecondition):
    """The enrolment that a repeated request_id names was used already, so its token is not told again."""

    reason = "ENROLLMENT_USED"


class EnrollmentKeyDiffers(FailedPrecondition):
    """The token of a repeated request_id was derived with another enrolment key than this replica has."""

    reason = "ENROLLMENT_KEY_DIFFERS"


class StreamFenced(Conflict):
    """A newer stream of the same caller took this one's place."""

    reason = "STREAM_FENCED"


class StreamMalformed(InvalidArgument):
    """A stream did not begin with hello, or a message is larger than agreed."""

    reason = "STREAM_MALFORMED"


class PresenceUnavailable(Unavailable):
    """Which agent is where cannot be written down now."""

    reason = "PRESENCE_UNAVAILABLE"


class SigningUnavailable(Unavailable):
    """The keys service signs no certificate now."""

    reason = "SIGNING_UNAVAILABLE"


class GatewayStopping(Unavailable):
    """This replica is going away: connect again, to another one."""

    reason = "GATEWAY_STOPPING"
