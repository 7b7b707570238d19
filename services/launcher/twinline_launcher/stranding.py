"""Why a list stopped, in words, and the way out."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from twinline_launcher.models import Instance
from twinline_launcher.steps import Step


class Reason(StrEnum):
    """Why a list stopped, where that is not the reason of a task that never started or of what refused the run."""

    SCRIPT_FAILED = "SCRIPT_FAILED"
    SCRIPT_TIMED_OUT = "SCRIPT_TIMED_OUT"
    SCRIPT_CANCELED = "SCRIPT_CANCELED"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    BOOT_OVERRAN = "BOOT_OVERRAN"
    DECOMMISSION_OVERRAN = "DECOMMISSION_OVERRAN"


_AGENT = "let {server} reach the gateway (outbound TLS) and check its agent, {resume}"
_SLOW = "read {output}, mend what takes so long, {resume}, {force}"

WAYS_OUT: Mapping[str, str] = {
    "KEY_MATERIAL_MISSING": "`twinline keys upload-material {key} FILE`, {resume}",
    # The machine lets in no other key, and a new one of the same name is another.
    "KEY_NOT_FOUND": (
        "cloud key {key} was deleted, and the machine lets in no other: {terminate}, choose another key for it and "
        "launch it again, {force}"
    ),
    # A group reaches the machines that have it; which groups a machine has was frozen.
    "PORT_UNREACHABLE": (
        "open port 22 in {groups} and check that sshd runs, {resume}, or {terminate}, give it another group and launch "
        "it again"
    ),
    "AUTH_REFUSED": "let the public half of cloud key {key} log in as {username}, {resume}",
    "HOST_KEY_MISMATCH": "another machine answers at {address}: find out which, {resume}, or {terminate}",
    "AGENT_NEVER_ENROLLED": _AGENT,
    "AGENT_OFFLINE": _AGENT,
    "INPUT_MISSING": "{terminate}, give it the input, and launch it again, {force}",
    "CREDENTIAL_NOT_FOUND": "`twinline credentials set NAME`, {resume}",
    "TARGET_NAME_TAKEN": "rename or delete the other target named {server}, {resume}",
    Reason.SCRIPT_FAILED: "read {output}, mend what is wrong on the machine, {resume}, {force}",
    Reason.SCRIPT_TIMED_OUT: _SLOW,
    Reason.SCRIPT_CANCELED: "`twinline servers resume {server}`, {force}",
    # A resume asks for another attempt only once the one before is over, or its end will never be known.
    Reason.OUTCOME_UNKNOWN: (
        "read {output}, {resume}, which waits for the end while that may come yet, and else runs it again, {force}"
    ),
    Reason.BOOT_OVERRAN: _SLOW,
}
"""What to do about a boot that stopped, by reason."""

_NO_GROUP = (
    "the machine has no security group, and is given none any more: {terminate}, give it one that opens port 22 and "
    "launch it again, {force}"
)
# The launch froze the revision: a resume runs it again, however often the script was mended.
_NEWER = (
    "{server} keeps {script} revision {revision} (newest: {newest}): {rerun}, then `twinline servers force-operational "
    "{server}`; or {terminate} and launch it again, which takes the newest unless the template names another"
)
_ANY_OTHER = "mend what the message says, {resume}, {force}"

MENDED_BY_PUSH = frozenset({Reason.SCRIPT_FAILED, Reason.SCRIPT_TIMED_OUT})
"""What another revision of the script may cure."""


@dataclass(frozen=True)
class Failure:
    """Why a step did not succeed: a typed reason, and the same in words."""

    reason: str
    message: str


def said(machine: Instance, failure: Failure) -> Failure:
    """The failure with the machine's cloud key called by its name: other services know it by id."""
    return replace(failure, message=failure.message.replace(machine.cloud_key, machine.cloud_key_name))


def boot(
    machine: Instance, failure: Failure, step: Step, *, newest: int = 0, rest: Sequence[str] = ()
) -> dict[str, str]:
    """The stranding of a boot at `step`, as it is stored.

    `newest` is the newest revision of its script, 0 where that does not matter; `rest` the steps that follow.
    """
    if newest > step.revision:
        return _stored(failure, step, _newer(machine, step, newest, rest))
    return _stored(failure, step, _way_out(machine, failure.reason, step.run))


def decommission(machine: Instance, failure: Failure, step: Step, *, force_after: timedelta) -> dict[str, str]:
    """The stranding of a decommission, as it is stored."""
    minutes = round(force_after.total_seconds() / 60)
    way_out = (
        f"`twinline servers terminate {machine.server_name}` ends it now; else it is ended by force after {minutes} min"
    )
    return _stored(failure, step, way_out)


def _stored(failure: Failure, step: Step, way_out: str) -> dict[str, str]:
    return {
        "reason": failure.reason,
        "message": failure.message,
        "failed_step": step.title,
        "run": step.run,
        "way_out": way_out,
    }


def _newer(machine: Instance, step: Step, newest: int, rest: Sequence[str]) -> str:
    server = machine.server_name
    given = " --input NAME=VALUE" if step.inputs else ""
    rerun = f"`twinline run {shlex.quote(step.script)} --on name:{server}{given}`"
    if rest:
        rerun += f", the same with {', '.join(rest)}"
    terminate = f"`twinline servers terminate {server}`"
    return _NEWER.format(
        server=server, script=step.script, revision=step.revision, newest=newest, rerun=rerun, terminate=terminate
    )


def _way_out(machine: Instance, reason: str, run: str) -> str:
    server = machine.server_name
    way_out = WAYS_OUT.get(reason, _ANY_OTHER)
    if reason == "PORT_UNREACHABLE" and not machine.security_groups:
        way_out = _NO_GROUP
    return way_out.format(
        server=server,
        key=machine.cloud_key_name,
        username=machine.username or "root",
        address=machine.address,
        groups=f"security group {' or '.join(machine.security_groups)}",
        output=f"`twinline runs output {run}`" if run else f"`twinline servers show {server}`",
        resume=f"then `twinline servers resume {server}`",
        terminate=f"`twinline servers terminate {server}`",
        force=f"or `twinline servers force-operational {server}`",
    )
