"""The small languages of options."""

import pytest

from twinline_cli.errors import CliError
from twinline_cli.options import parse_duration, parse_inputs, to_duration


def test_inputs_keep_their_value_syntax() -> None:
    assert parse_inputs(["PORT=text:80=80", "P=cred:db", "X=ignore"]) == {
        "PORT": "text:80=80",
        "P": "cred:db",
        "X": "ignore",
    }


@pytest.mark.parametrize(
    "pairs", [["PORT"], ["=text:1"], ["PORT=80"], ["TWINLINE_RUN=text:1"], ["A=cred:a b"], ["A=text:1", "A=text:2"]]
)
def test_inputs_that_cannot_be_meant_are_refused(pairs: list[str]) -> None:
    with pytest.raises(CliError, match="--input"):
        parse_inputs(pairs)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5x", "5m and", "-5m", "nan", "-1", "inf"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(CliError, match="no duration"):
        parse_duration(text)


def test_a_duration_keeps_its_fraction() -> None:
    assert (to_duration(1.5).seconds, to_duration(1.5).nanos) == (1, 500_000_000)


def test_a_duration_of_ages_is_the_longest_that_can_be_sent() -> None:
    duration = to_duration(parse_duration("99999999999999999999d"))
    assert (duration.ToJsonString(), duration.nanos) == ("315576000000s", 0)
