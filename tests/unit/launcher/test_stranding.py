"""Why it stopped, and the way out."""

from datetime import timedelta

import pytest

from tests.unit.launcher.machines import machine
from twinline_launcher import stranding
from twinline_launcher.stranding import Failure


def test_missing_material_names_the_key_and_the_resume() -> None:
    why = stranding.boot(machine(), Failure("KEY_MATERIAL_MISSING", "no key"), step="hello", run="run-1")
    assert why["way_out"] == "`twinline keys upload-material found-key FILE`, then `twinline servers resume web-1`"


def test_a_deleted_key_is_called_by_its_name_and_no_resume_is_promised() -> None:
    failure = stranding.said(machine(), Failure("KEY_NOT_FOUND", "no cloud key key-1: list the keys"))
    why = stranding.boot(machine(), failure, step="hello", run="run-1")
    assert why["message"] == "no cloud key found-key: list the keys"
    assert why["way_out"] == (
        "cloud key found-key was deleted, and the machine lets in no other: `twinline servers terminate web-1`, choose "
        "another key for it and launch it again, or `twinline servers force-operational web-1`"
    )


@pytest.mark.parametrize(
    "reason",
    [
        "PORT_UNREACHABLE",
        "AUTH_REFUSED",
        "HOST_KEY_MISMATCH",
        "AGENT_NEVER_ENROLLED",
        "SCRIPT_FAILED",
        "NEVER_HEARD_OF",
    ],
)
def test_every_stranded_boot_has_a_way_out_that_resumes(reason: str) -> None:
    it = machine(security_groups=["web"])
    why = stranding.boot(it, Failure(reason, "it failed"), step="hello", run="run-1")
    assert "`twinline servers resume web-1`" in why["way_out"]


def test_a_closed_port_is_opened_in_a_group_that_the_machine_was_launched_with() -> None:
    it = machine(security_groups=["web", "base"])
    why = stranding.boot(it, Failure("PORT_UNREACHABLE", "no SSH connection"), step="hello", run="run-1")
    assert why["way_out"] == (
        "open port 22 in security group web or base and check that sshd runs, then `twinline servers resume web-1`, or "
        "`twinline servers terminate web-1`, give it another group and launch it again"
    )


def test_without_a_group_no_resume_is_promised() -> None:
    why = stranding.boot(machine(), Failure("PORT_UNREACHABLE", "no SSH connection"), step="hello", run="run-1")
    assert why["way_out"] == (
        "the machine has no security group, and is given none any more: `twinline servers terminate web-1`, give it "
        "one that opens port 22 and launch it again, or `twinline servers force-operational web-1`"
    )


def test_a_stranded_decommission_says_when_it_is_ended_by_force() -> None:
    failure = Failure("SCRIPT_FAILED", "it failed")
    why = stranding.decommission(machine(), failure, step="bye", run="run-1", force_after=timedelta(minutes=50))
    assert why["way_out"] == "`twinline servers terminate web-1` ends it now; else it is ended by force after 50 min"
