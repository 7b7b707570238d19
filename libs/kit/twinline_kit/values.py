"""Input values: the one syntax of what scripts get as environment variables. Nothing here reads or opens anything.

`text:…`, `cred:NAME`, `blank` (set, and empty), `ignore` (not set at all), `array:["text:a","cred:B"]` (joined by
commas). Faults are ValueErrors that go on from the input's name: `input 'PORT' is not text:…`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

SYNTAX = "text:…, cred:NAME, blank, ignore or array:[…]"
"""For people."""

LARGEST = 128 * 1024
"""Bytes of one variable: what Linux takes, name, equals sign and final NUL included."""

LARGEST_TOTAL = 1 << 20
"""Bytes of all inputs of one run."""

MOST_ELEMENTS = 1000
"""Of one array."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CREDENTIAL = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_OURS = ("TWINLINE_", "TRACEPARENT")
_READ_ONLY = frozenset({"BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"})
_NO_ARRAY = 'is not array:["text:a","cred:B"]'


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


def parse(value: str) -> Value | None:
    """Take a value apart; None for `ignore`. Raises ValueError that says what is wrong."""
    if value == "ignore":
        return None
    if value == "blank":
        return Value(((False, ""),))
    kind, colon, rest = value.partition(":")
    if not colon or kind not in ("text", "cred", "array"):
        raise ValueError(f"is not {SYNTAX}")
    if kind == "array":
        return _parse_array(rest)
    if kind == "cred":
        if not _CREDENTIAL.fullmatch(rest):
            raise ValueError("has a credential name that is not made of letters, digits, _ - .")
        return Value(((True, rest),))
    if "\0" in rest:
        raise ValueError("holds a NUL, which no variable can")
    if len(rest.encode()) > LARGEST:
        raise ValueError("is larger than 128 KiB")
    return Value(((False, rest),))


def check_name(name: str) -> None:
    """Raises ValueError when no script can have an input of this name."""
    if not _NAME.fullmatch(name):
        raise ValueError("has a name that no environment variable can have")
    if name.startswith(_OURS):
        raise ValueError("has a name that Twinline sets itself")
    if name in _READ_ONLY:
        raise ValueError("has a name that shells let nobody set")


def check(name: str, value: str) -> None:
    """Raises ValueError when an input has a name or value, or is of a size, that no script can be given."""
    check_name(name)
    parsed = parse(value)
    texts = [text.encode() for secret, text in parsed.parts if not secret] if parsed else []
    if len(name) + len(b",".join(texts)) + len("=\0") > LARGEST:
        raise ValueError("is larger than 128 KiB")


def size(variables: Mapping[str, str]) -> int:
    """Bytes of names and values together, which LARGEST_TOTAL bounds."""
    return sum(len(name.encode()) + len(value.encode()) for name, value in variables.items())


def check_total(inputs: Mapping[str, str]) -> None:
    """Raises ValueError when inputs are more than one run takes."""
    if size(inputs) > LARGEST_TOTAL:
        raise ValueError("are larger than 1 MiB together; let the script fetch its data")


def faults(inputs: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is wrong with the inputs of one run, each by name: `("PORT", "input 'PORT' is not text:…")`."""
    for name, value in inputs.items():
        try:
            check(name, value)
        except ValueError as fault:
            yield name, f"input {name!r} {fault}"
    try:
        check_total(inputs)
    except ValueError as fault:
        yield "inputs", f"inputs {fault}"


def _parse_array(text: str) -> Value:
    try:
        elements = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(_NO_ARRAY) from None
    if not isinstance(elements, list) or not all(isinstance(element, str) for element in elements):
        raise ValueError(_NO_ARRAY)
    if len(elements) > MOST_ELEMENTS:
        raise ValueError(f"has more than {MOST_ELEMENTS} elements")
    parts: list[tuple[bool, str]] = []
    for element in elements:
        value = None if element.startswith("array:") else parse(element)
        if value is None:
            raise ValueError("has an element that is ignore or an array")
        parts.extend(value.parts)
    return Value(tuple(parts) or ((False, ""),))
