"""Inputs: what a script gets as environment variables.

Value syntax: `text:…`, `cred:NAME`, `blank` (set, and empty), `ignore` (not set at all), `array:["text:a","cred:B"]`
(joined by commas). What depends on a server, such as `env:`, is resolved by whoever owns the server.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from twinline_executor.errors import InputMalformed, InputMissing
from twinline_kit.errors import Violation

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
CREDENTIAL = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")
OURS = ("TWINLINE_", "TRACEPARENT")
READ_ONLY = frozenset({"BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"})
MAX_TOTAL = 1 << 20
MAX_VALUE = 128 * 1024  # what Linux takes in one variable


@dataclass(frozen=True)
class Declaration:
    """An input that a script says it takes."""

    name: str
    category: str = ""
    description: str = ""
    required: bool = False
    advanced: bool = False
    default: str = ""  # in value syntax; empty: none
    possible_values: tuple[str, ...] = ()
    detected: bool = False


@dataclass(frozen=True)
class Value:
    """A value taken apart: texts and credential names, in order; joined by commas."""

    parts: tuple[tuple[bool, str], ...]  # (is it a credential, text or name)

    def credentials(self) -> set[str]:
        """The names of the credentials it needs."""
        return {text for secret, text in self.parts if secret}

    def open(self, credentials: Mapping[str, str]) -> str:
        """The variable's content."""
        return ",".join(credentials[text] if secret else text for secret, text in self.parts)


@dataclass
class Problems:
    """Everything wrong with a set of inputs, said at once."""

    missing: list[Violation] = field(default_factory=list)
    malformed: list[Violation] = field(default_factory=list)

    def raise_if_any(self) -> None:
        """Raise for what is malformed, then for what is missing."""
        if self.malformed:
            first = self.malformed[0]
            raise InputMalformed(first.message, violations=self.malformed, input=first.subject)
        if self.missing:
            names = ", ".join(problem.subject for problem in self.missing)
            raise InputMissing(
                f"required inputs have no value: {names}; give each as NAME=text:VALUE",
                violations=self.missing,
                inputs=names,
            )


def parse_value(value: str) -> Value | None:
    """Take a value apart; None for `ignore`. Raises ValueError that says what is wrong."""
    if value == "ignore":
        return None
    if value == "blank":
        return Value(((False, ""),))
    kind, colon, rest = value.partition(":")
    if not colon or kind not in ("text", "cred", "array"):
        raise ValueError("is not text:…, cred:NAME, blank, ignore or array:[…]")
    if kind == "array":
        return _parse_array(rest)
    if kind == "cred":
        if not CREDENTIAL.match(rest):
            raise ValueError("has a credential name that is not made of letters, digits, _ - .")
        return Value(((True, rest),))
    if "\0" in rest:
        raise ValueError("holds a NUL, which no variable can")
    if len(rest.encode()) > MAX_VALUE:
        raise ValueError("is larger than 128 KiB")
    return Value(((False, rest),))


def _parse_array(text: str) -> Value:
    try:
        elements = json.loads(text)
    except ValueError:
        raise ValueError('is not array:["text:a","cred:B"]') from None
    if not isinstance(elements, list) or not all(isinstance(element, str) for element in elements):
        raise ValueError('is not array:["text:a","cred:B"]')
    parts: list[tuple[bool, str]] = []
    for element in elements:
        value = parse_value(element)
        if value is None or element.startswith("array:"):
            raise ValueError("has an element that is ignore or an array")
        parts.extend(value.parts)
    return Value(tuple(parts) or ((False, ""),))


def resolve(declarations: Sequence[Declaration], given: Mapping[str, str]) -> dict[str, str]:
    """The inputs of a run in value syntax, defaults filled in. Raises InputMissing or InputMalformed with all of it."""
    problems = Problems()
    resolved = dict(given)
    for declaration in declarations:
        value = resolved.setdefault(declaration.name, declaration.default)
        if not value:
            del resolved[declaration.name]
        if declaration.required and value in ("", "ignore"):
            problems.missing.append(
                Violation("INPUT_MISSING", declaration.name, f"input {declaration.name} is required")
            )
        elif value and declaration.possible_values and value not in declaration.possible_values:
            choices = ", ".join(declaration.possible_values)
            _malformed(problems, declaration.name, f"is none of {choices}")
    for name, value in resolved.items():
        _check(problems, name, value)
    if sum(len(name) + len(value) for name, value in resolved.items()) > MAX_TOTAL:
        _malformed(problems, "inputs", "are larger than 1 MiB together; let the script fetch its data")
    problems.raise_if_any()
    return resolved


def _check(problems: Problems, name: str, value: str) -> None:
    if not NAME.match(name):
        _malformed(problems, name, "has a name that no environment variable can have")
    elif name.startswith(OURS):
        _malformed(problems, name, "has a name that Twinline sets itself")
    elif name in READ_ONLY:
        _malformed(problems, name, "has a name that shells let nobody set")
    try:
        parse_value(value)
    except ValueError as error:
        _malformed(problems, name, str(error))


def _malformed(problems: Problems, name: str, what: str) -> None:
    problems.malformed.append(Violation("INPUT_MALFORMED", name, f"input {name!r} {what}"))
