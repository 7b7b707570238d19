"""Why a list stopped, in words, and the way out."""

from dataclasses import dataclass
from datetime import timedelta

from twinline_launcher.models import Instance

SCRIPT_FAILED = "SCRIPT_FAILED"
SCRIPT_TIMED_OUT = "SCRIPT_TIMED_OUT"
SCRIPT_CANCELED = "SCRIPT_CANCELED"
OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
BOOT_OVERRAN = "BOOT_OVERRAN"
DECOMMISSION_OVERRAN = "DECOMMISSION_OVERRAN"


@dataclass(frozen=True)
class Failure:
    """Why a step did not succeed: a typed reason, and the same in words."""

    reason: str
    message: str


def boot(machine: Instance, failure: Failure, *, step: str, run: str) -> dict[str, str]:
    """The stranding of a boot, as it is stored."""
    return _stored(failure, step, run, _way_out(machine, failure.reason, run))


def decommission(machine: Instance, failure: Failure, *, step: str, run: str, force_after: timedelta) -> dict[str, str]:
    """The stranding of a decommission, as it is stored."""
    minutes = round(force_after.total_seconds() / 60)
    way_out = (
        f"twinline servers terminate {machine.server_name} ends it now; else it is ended by force after {minutes} min"
    )
    return _stored(failure, step, run, way_out)


def _stored(failure: Failure, step: str, run: str, way_out: str) -> dict[str, str]:
    return {
        "reason": failure.reason,
        "message": failure.message,
        "failed_step": step,
        "run": run,
        "way_out": way_out,
    }


def _way_out(machine: Instance, reason: str, run: str) -> str:
    server, key = machine.server_name, machine.cloud_key_name
    resume = f"then twinline servers resume {server}"
    force = f"or twinline servers force-operational {server}"
    output = f"twinline runs output {run}" if run else f"twinline servers show {server}"
    return {
        "KEY_MATERIAL_MISSING": f"twinline keys upload-material {key} FILE, {resume}",
        "PORT_UNREACHABLE": f"open port 22 in a security group of {server} and check that sshd runs, {resume}",
        "AUTH_REFUSED": f"let the public half of cloud key {key} log in as {machine.username or 'root'}, {resume}",
        "HOST_KEY_MISMATCH": (
            f"another machine answers at {machine.address}: find out which, {resume}, "
            f"or twinline servers terminate {server}"
        ),
        "AGENT_NEVER_ENROLLED": f"let {server} reach the gateway (outbound TLS) and check its agent, {resume}",
        "AGENT_OFFLINE": f"let {server} reach the gateway (outbound TLS) and check its agent, {resume}",
        "INPUT_MISSING": f"terminate {server}, give it the input, and launch it again, {force}",
        "CREDENTIAL_NOT_FOUND": f"twinline credentials set NAME, {resume}",
        "TARGET_NAME_TAKEN": f"rename or delete the other target named {server}, {resume}",
        SCRIPT_FAILED: f"read {output}, mend what is wrong on the machine, {resume}, {force}",
        SCRIPT_TIMED_OUT: f"read {output}, mend what takes so long, {resume}, {force}",
        SCRIPT_CANCELED: f"twinline servers resume {server}, {force}",
        OUTCOME_UNKNOWN: f"read {output}; when the machine is back, twinline servers resume {server}, {force}",
        BOOT_OVERRAN: f"read {output}, mend what takes so long, {resume}, {force}",
    }.get(reason, f"mend what the message says, {resume}, {force}")
