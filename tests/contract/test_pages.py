"""What the pages list is what the code has."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from grpc import StatusCode

import twinline_agent_gateway
import twinline_cli
import twinline_executor
import twinline_keys
import twinline_kit
import twinline_launcher
import twinline_suite
from twinline_cli.errors import BY_STATUS, ExitCode
from twinline_cli.formats import Format
from twinline_cli.manifests import KINDS
from twinline_cli.options import parse_duration
from twinline_executor import selectors
from twinline_executor.reasons import TaskReason
from twinline_kit import values
from twinline_kit.errors import Error
from twinline_launcher import stranding
from twinline_launcher.errors import SshdMissing
from twinline_launcher.plan import Finding
from twinline_launcher.states import TRANSITIONS
from twinline_suite import up

ROOT = Path(__file__).parents[2]
SERVICES = (twinline_keys, twinline_launcher, twinline_executor, twinline_agent_gateway)
PACKAGES = (twinline_kit, *SERVICES, twinline_suite, twinline_cli)
REASON = re.compile(r"`([A-Z][A-Z0-9_]+)`")
TASKS = "Why a task did not start, or its end is not known"
BLOCK = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANY_REASON = re.compile(r"\b[A-Z][A-Z0-9_]{3,}\b")
RPC = re.compile(r"(?:^  //.*\n)+  rpc \w+", re.MULTILINE)
NOT_ANSWERED = {
    "CLEAR_MATERIAL_STORED", "SEALING_KEY_WRONG", "SECRET_FILE_UNUSABLE",  # a service does not start
    "CREDENTIAL_MALFORMED", "INPUT_TOO_LARGE", "LAUNCH_REFUSED", "SSHD_MISSING",  # why a task or server goes no further
    "INSTANCE_NOT_FOUND", "TASK_STATE_ILLEGAL",  # a service notices that it is wrong itself
}  # fmt: skip
"""Reasons of a service that none of its RPCs answers."""
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def rows(page: str) -> set[tuple[str, ...]]:
    """The cells of every table row of a page."""
    lines = (ROOT / page).read_text().splitlines()
    return {tuple(cell.strip(" `") for cell in line.strip("|").split("|")) for line in lines if line.startswith("|")}


def below(page: str, heading: str) -> str:
    """What stands below a heading of a page."""
    return (ROOT / page).read_text().split(f"\n## {heading}\n", maxsplit=1)[1].split("\n## ")[0]


def table(heading: str) -> list[tuple[str, ...]]:
    """The rows below a heading of the page about the command line, without the titles."""
    lines = [line for line in below("docs/command-line.md", heading).splitlines() if line.startswith("|")]
    return [tuple(cell.strip(" `") for cell in line.strip("|").split("|")) for line in lines[2:]]


def reasons_under(heading: str) -> set[str]:
    """The reasons in the first column of the tables that stand below a heading of the errors page."""
    cells = (line.split("|")[1] for line in below("docs/errors.md", heading).splitlines() if line.startswith("|"))
    return {reason for cell in cells for reason in REASON.findall(cell)}


def reasons_of_rpcs(service: str) -> set[str]:
    """The reasons in the comments of a service's RPCs."""
    protos = (path.read_text() for path in (ROOT / "protos/twinline" / service / "v1").glob("*.proto"))
    comments = (comment for proto in protos for comment in RPC.findall(proto))
    listed = (comment.partition("Reasons:")[2].rpartition("\n")[0] for comment in comments)
    return {reason for each in listed for reason in ANY_REASON.findall(each)}


def every_error() -> list[type[Error]]:
    """Each error class of the kit and the services."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__") and ".migrations" not in module.name:
                importlib.import_module(module.name)
    found, waiting = [], [Error]
    while waiting:
        children = waiting.pop().__subclasses__()
        found += [each for each in children if each.__module__.startswith("twinline_")]
        waiting += children
    return found


def test_the_lifecycle_page_has_exactly_the_transitions_of_the_table() -> None:
    table = {
        (before.name, event.value, after.name) for before, row in TRANSITIONS.items() for event, after in row.items()
    }
    states = {state.name for state in TRANSITIONS}
    assert {row for row in rows("docs/lifecycle.md") if row[0] in states} == table


def test_the_errors_page_has_exactly_the_reasons_of_the_code() -> None:
    reasons = {error.reason: error.code.name for error in every_error()}
    listed = {row[0]: row[1] for row in rows("docs/errors.md") if row[1] in StatusCode.__members__}
    assert listed == reasons


@pytest.mark.parametrize("service", ["keys", "agent_gateway", "launcher", "executor"])
def test_the_comments_of_rpcs_have_the_reasons_of_their_service_and_the_page_has_theirs(service: str) -> None:
    commented, listed = reasons_of_rpcs(service), reasons_under(service)
    assert listed - commented == listed & NOT_ANSWERED
    # The others are another service's, or the kit's.
    assert commented - listed <= {error.reason for error in every_error()}


def test_the_errors_page_has_exactly_what_preflight_finds() -> None:
    assert reasons_under("What preflight finds") == {*Finding, SshdMissing.reason}


def test_the_errors_page_has_every_reason_of_tasks() -> None:
    listed = reasons_under(TASKS)
    assert listed >= set(TaskReason)
    # The others are what another service, or a run's own values, refused.
    assert listed - set(TaskReason) <= {error.reason for error in every_error()}


def test_the_errors_page_has_the_reasons_of_strandings_and_everything_there_is_a_way_out_of() -> None:
    stranded, tasks = reasons_under("Why a server is stranded"), reasons_under(TASKS)
    errors = {error.reason for error in every_error()}
    assert stranded >= set(stranding.Reason)
    assert stranded - set(stranding.Reason) <= tasks & set(stranding.WAYS_OUT)
    assert set(stranding.WAYS_OUT) <= stranded | tasks | errors


def test_the_page_about_the_command_line_has_exactly_the_exit_codes() -> None:
    assert [row[:2] for row in table("Exit codes")] == [(str(code.value), code.name) for code in ExitCode]


def test_the_page_about_the_command_line_has_what_each_answer_makes_the_exit_code() -> None:
    assert table("Exit codes of what the suite answers") == [
        (name, str(code.value)) for name, code in BY_STATUS.items()
    ]
    assert set(BY_STATUS) == {error.code.name for error in every_error()}


def test_the_page_about_the_command_line_has_exactly_the_formats_and_the_nouns_of_selectors() -> None:
    assert [row[0] for row in table("Output")] == list(Format)
    assert [row[0] for row in table("Selectors")] == list(selectors.NOUNS)


def test_the_page_about_the_command_line_has_exactly_the_kinds_and_fields_of_manifests() -> None:
    listed = [(kind, field, what.startswith("required")) for kind, field, what in table("What `apply` takes")]
    fields = [(kind, name, field.is_required) for kind, known in KINDS.items() for name, field in known.items()]
    assert listed == fields


def test_what_the_page_about_the_command_line_has_as_examples_can_be_read() -> None:
    page = "docs/command-line.md"
    (examples,) = BLOCK.findall(below(page, "Selectors"))
    for selector in examples.splitlines():
        selectors.parse(selector)
    for value, _ in table("Inputs"):
        values.parse(value)
    durations = re.findall(r"`(\d\w*)`", below(page, "Durations"))
    assert [parse_duration(each) for each in durations] == [90, 90, 300, 5400, 0.25, 172_800]


def test_what_up_prints_to_be_tried_is_what_the_readme_has() -> None:
    (block,) = (each for each in BLOCK.findall((ROOT / "README.md").read_text()) if "twinline doctor" in each)
    commands = [line for line in block.splitlines() if not line.startswith("export ")]
    assert commands == [command.format(examples="examples") for command in up.TOUR]


@pytest.mark.parametrize(
    "page", sorted(path.relative_to(ROOT) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]), ids=str
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = LINK.findall((ROOT / page).read_text())
    assert [target for target in targets if not (ROOT / page.parent / target).exists()] == []
