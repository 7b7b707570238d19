"""Inputs: which value wins, and where it came from.

Precedence, lowest first: script, template, deployment, server, launch. What a launch finds is frozen on the machine.
`cred:NAME` stays a name all the way to the executor, which opens it for the run alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from twinline_kit.errors import InvalidArgument
from twinline_kit.values import faults, parse

SCRIPT, TEMPLATE, DEPLOYMENT, SERVER, LAUNCH = ORIGINS = ("script", "template", "deployment", "server", "launch")
"""Where a value can come from, lowest first."""


@dataclass(frozen=True)
class Declaration:
    """An input that a script takes, as the executor read it."""

    name: str
    required: bool = False
    default: str = ""
    possible_values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Input:
    """A value in value syntax, and which of ORIGINS gave it."""

    name: str
    value: str
    origin: str


def resolve(declared: Iterable[Declaration], layers: Mapping[str, Mapping[str, str]]) -> list[Input]:
    """One value per name, by name: of the highest of `layers` (by origin), else the first script's default."""
    found: dict[str, Input] = {}
    for declaration in declared:
        if declaration.default:
            found.setdefault(declaration.name, Input(declaration.name, declaration.default, SCRIPT))
    for origin in ORIGINS[1:]:
        found.update({name: Input(name, value, origin) for name, value in layers.get(origin, {}).items()})
    return [found[name] for name in sorted(found)]


def given_to(names: Iterable[str], frozen: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What a run of a script that declares `names` is given of the frozen inputs.

    Its own defaults are left to the executor, which has them for the very revision.
    """
    wanted = set(names)
    return {each["name"]: each["value"] for each in frozen if each["name"] in wanted and each["origin"] != SCRIPT}


def missing(declared: Sequence[Declaration], values: Mapping[str, str]) -> list[str]:
    """The names of required inputs that have no value."""
    return [
        declaration.name
        for declaration in declared
        if declaration.required and values.get(declaration.name, declaration.default) in ("", "ignore")
    ]


def impossible(declared: Sequence[Declaration], values: Mapping[str, str]) -> list[tuple[str, str]]:
    """Inputs whose value is none of those possible, and what is possible."""
    wrong = []
    for declaration in declared:
        value = values.get(declaration.name, "")
        if value and declaration.possible_values and value not in declaration.possible_values:
            wrong.append((declaration.name, ", ".join(declaration.possible_values)))
    return wrong


def credentials(values: Iterable[str]) -> set[str]:
    """The names of the credentials that values refer to."""
    return {name for value in values for name in _credentials(value)}


def check(given: Mapping[str, str], field: str) -> dict[str, str]:
    """`given`, when a script can be given all of it; else InvalidArgument names the first that is wrong."""
    if fault := next(faults(given), None):
        raise InvalidArgument(fault[1], field=field)
    return dict(given)


def _credentials(value: str) -> set[str]:
    try:
        parsed = parse(value)
    except ValueError:
        return set()  # said of the value itself
    return parsed.credentials() if parsed else set()
