"""What the launcher refuses, each with its own reason."""

from collections.abc import Iterable

from twinline_kit.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable, Violation


class ServerNotFound(NotFound):
    """No server has this name or id."""

    reason = "SERVER_NOT_FOUND"


class InstanceNotFound(NotFound):
    """No machine has this id."""

    reason = "INSTANCE_NOT_FOUND"


class ImageNotFound(NotFound):
    """No image has this name."""

    reason = "IMAGE_NOT_FOUND"


class TemplateNotFound(NotFound):
    """No template has this name."""

    reason = "TEMPLATE_NOT_FOUND"


class DeploymentNotFound(NotFound):
    """No deployment has this name."""

    reason = "DEPLOYMENT_NOT_FOUND"


class SecurityGroupNotFound(NotFound):
    """No security group has this name."""

    reason = "SECURITY_GROUP_NOT_FOUND"


class CloudUnknown(InvalidArgument):
    """This launcher has no cloud of this name."""

    reason = "CLOUD_UNKNOWN"


class IllegalTransition(FailedPrecondition):
    """A server in this state cannot go this way; metadata has the server, state, event and what is allowed."""

    reason = "ILLEGAL_TRANSITION"


class PreflightRefused(FailedPrecondition):
    """A launch that would go wrong; each obstacle is a violation."""

    reason = "PREFLIGHT_REFUSED"


class LaunchRefused(FailedPrecondition):
    """The cloud will not make the machine, however often it is asked."""

    reason = "LAUNCH_REFUSED"


class RecordUnreadable(Unavailable):
    """A file in which the local cloud keeps a machine, or its security groups, is spoilt; metadata has the file."""

    reason = "RECORD_UNREADABLE"


class SshdMissing(LaunchRefused):
    """The local cloud cannot make v4 machines without OpenSSH's server."""

    reason = "SSHD_MISSING"


def no_script(name: str, revision: int) -> str:
    """What is said of a script, or of a revision of it, that is not in the executor."""
    if revision:
        return f"no script {name} with revision {revision}: name one that was pushed, or leave it out for the newest"
    return f"no script {name}: push it first"


def scripts_not_found(missing: Iterable[Violation]) -> NotFound:
    """Some scripts are not in the executor, all of them listed. The reason is the executor's own."""
    violations = list(missing)
    text = "; ".join(violation.message for violation in violations)
    names = ", ".join(dict.fromkeys(violation.subject for violation in violations))
    error = NotFound(text, violations=violations, scripts=names)
    error.reason = "SCRIPT_NOT_FOUND"
    return error
