"""Why it stopped, and the way out."""

from datetime import timedelta

import pytest

from tests.unit.launcher.machines import machine
from twinline_launcher import stranding
from twinline_launcher.steps import Step
from twinline_launcher.stranding import Failure

HELLO = Step("hello", 1, run="run-1")


def test_missing_material_names_the_key_and_the_resume() -> None:
    why = stranding.boot(machine(), Failure("KEY_MATERIAL_MISSING", "no key"), HELLO)
    assert why["way_out"] == "`twinline keys upload-material found-key FILE`, then `twinline servers resume web-1`"


def test_a_deleted_key_is_called_by_its_name_and_no_resume_is_promised() -> None:
    failure = stranding.said(machine(), Failure("KEY_NOT_FOUND", "no cloud key key-1: list the keys"))
    why = stranding.boot(machine(), failure, HELLO)
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
    why = stranding.boot(it, Failure(reason, "it failed"), HELLO)
    assert "`twinline servers resume web-1`" in why["way_out"]


def test_a_closed_port_is_opened_in_a_group_that_the_machine_was_launched_with() -> None:
    it = machine(security_groups=["web", "base"])
    why = stranding.boot(it, Failure("PORT_UNREACHABLE", "no SSH connection"), HELLO)
    assert why["way_out"] == (
        "open port 22 in security group web or base and check that sshd runs, then `twinline servers resume web-1`, or "
        "`twinline servers terminate web-1`, give it another group and launch it again"
    )


def test_without_a_group_no_resume_is_promised() -> None:
    why = stranding.boot(machine(), Failure("PORT_UNREACHABLE", "no SSH connection"), HELLO)
    assert why["way_out"] == (
        "the machine has no security group, and is given none any more: `twinline servers terminate web-1`, give it "
        "one that opens port 22 and launch it again, or `twinline servers force-operational web-1`"
    )


def test_a_stranded_decommission_says_when_it_is_ended_by_force() -> None:
    failure = Failure("SCRIPT_FAILED", "it failed")
    why = stranding.decommission(machine(), failure, HELLO, force_after=timedelta(minutes=50))
    assert why["way_out"] == "`twinline servers terminate web-1` ends it now; else it is ended by force after 50 min"


def test_a_script_that_was_mended_since_is_run_by_itself_for_a_resume_keeps_its_revision() -> None:
    step, failure = Step("say hello", 1, inputs=("WHOM",), run="run-1"), Failure("SCRIPT_FAILED", "it failed")
    why = stranding.boot(machine(), failure, step, newest=3, rest=["bye", "configure"])
    assert why["way_out"] == (
        "web-1 keeps say hello revision 1 (newest: 3): `twinline run 'say hello' --on name:web-1 --input NAME=VALUE`, "
        "the same with bye, configure, then `twinline servers force-operational web-1`; or `twinline servers terminate "
        "web-1` and launch it again, which takes the newest unless the template names another"
    )


@pytest.mark.parametrize("newest", [0, 1])
def test_without_a_newer_revision_it_is_mended_on_the_machine(newest: int) -> None:
    why = stranding.boot(machine(), Failure("SCRIPT_FAILED", "it failed"), HELLO, newest=newest)
    assert why["way_out"].startswith("read `twinline runs output run-1`, mend what is wrong on the machine")
