"""Options that several commands share, and the small languages in them."""

import re
from collections.abc import Sequence
from typing import Annotated

import typer
from google.protobuf.duration_pb2 import Duration

from twinline_cli.errors import CliError
from twinline_cli.formats import Format
from twinline_kit.values import check

Output = Annotated[Format, typer.Option("--output", "-o", help="How to print the result.")]

Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input", metavar="NAME=VALUE", help="An input, such as PORT=text:8080 or PASSWORD=cred:DB. Repeat it."
    ),
]

ReachTimeout = Annotated[
    str,
    typer.Option(
        "--reach-timeout", help="How long to try to reach a host, such as 30s; 5 min when absent, at most 6 days."
    ),
]

_LONGEST = 315_576_000_000.0  # seconds of the longest proto duration

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"\d+(\.\d+)?")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_inputs(pairs: Sequence[str] | None) -> dict[str, str]:
    """NAME=VALUE pairs as a mapping; the values stay in value syntax."""
    inputs: dict[str, str] = {}
    for pair in pairs or ():
        name, separator, value = pair.partition("=")
        if not name or not separator:
            raise CliError(f"--input {pair!r} is no NAME=VALUE; write it like --input PORT=text:8080")
        if name in inputs:
            raise CliError(f"--input {name} is given twice; keep one of them")
        try:
            check(name, value)
        except ValueError as fault:
            hint = f"; write {name}=text:{value} or {name}=cred:NAME" if ":" not in value else ""
            raise CliError(f"--input {name} {fault}{hint}") from None
        inputs[name] = value
    return inputs


def parse_duration(text: str) -> float:
    """`90`, `90s`, `5m`, `1h30m` in seconds."""
    if _NUMBER.fullmatch(text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or "".join(map("".join, parts)) != text:
        raise CliError(f"{text!r} is no duration; write it like 90s, 5m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def parse_limit(option: str, text: str) -> float:
    """The duration given with `option`, in seconds; it leaves some time."""
    seconds = parse_duration(text)
    if not seconds:
        raise CliError(f"{option} {text} leaves no time; write it like 90s, 5m or 1h30m")
    return seconds


def to_duration(seconds: float) -> Duration:
    """Seconds as a proto duration, or the longest one: whoever it is sent to says what is too long."""
    whole, rest = divmod(min(seconds, _LONGEST), 1)
    return Duration(seconds=int(whole), nanos=int(rest * 1e9))
