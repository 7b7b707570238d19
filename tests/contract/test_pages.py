"""What the pages list is what the code has."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from grpc import StatusCode

import twinline_agent_gateway
import twinline_executor
import twinline_keys
import twinline_kit
import twinline_launcher
from twinline_kit.errors import Error
from twinline_launcher.states import TRANSITIONS

ROOT = Path(__file__).parents[2]
PACKAGES = (twinline_kit, twinline_keys, twinline_launcher, twinline_executor, twinline_agent_gateway)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def rows(page: str) -> set[tuple[str, ...]]:
    """The cells of every table row of a page."""
    lines = (ROOT / page).read_text().splitlines()
    return {tuple(cell.strip(" `") for cell in line.strip("|").split("|")) for line in lines if line.startswith("|")}


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


@pytest.mark.parametrize(
    "page", sorted(path.relative_to(ROOT) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]), ids=str
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = LINK.findall((ROOT / page).read_text())
    assert [target for target in targets if not (ROOT / page.parent / target).exists()] == []
