"""Which value wins."""

import pytest

from twinline_kit.errors import InvalidArgument
from twinline_launcher import inputs
from twinline_launcher.inputs import Declaration, Input


@pytest.mark.parametrize("highest", range(1, len(inputs.ORIGINS)))
def test_the_highest_layer_that_has_a_value_gives_it(highest: int) -> None:
    origins = inputs.ORIGINS[1 : highest + 1]
    layers = {origin: {"PORT": f"text:{origin}"} for origin in origins}
    found = inputs.resolve([Declaration("PORT", default="text:script")], layers)
    assert found == [Input("PORT", f"text:{origins[-1]}", origins[-1])]


def test_without_any_layer_the_first_script_with_a_default_gives_it() -> None:
    declared = [Declaration("PORT"), Declaration("PORT", default="text:1"), Declaration("PORT", default="text:2")]
    assert inputs.resolve(declared, {}) == [Input("PORT", "text:1", "script")]


def test_a_credential_stays_a_name() -> None:
    assert inputs.resolve([], {"server": {"PASSWORD": "cred:db"}}) == [Input("PASSWORD", "cred:db", "server")]


def test_a_run_is_given_what_its_script_declares_without_defaults_of_other_scripts() -> None:
    frozen = [
        {"name": "A", "value": "text:a", "origin": "server"},
        {"name": "B", "value": "text:b", "origin": "launch"},
        {"name": "C", "value": "text:c", "origin": "script"},
    ]
    assert inputs.given_to(["A", "C"], frozen) == {"A": "text:a"}


@pytest.mark.parametrize(("value", "missing"), [(None, True), ("ignore", True), ("blank", False), ("text:", False)])
def test_a_required_input_needs_a_value(value: str | None, missing: bool) -> None:
    values = {} if value is None else {"A": value}
    assert inputs.missing([Declaration("A", required=True), Declaration("B")], values) == (["A"] if missing else [])


def test_a_default_is_a_value() -> None:
    assert inputs.missing([Declaration("A", required=True, default="text:1")], {}) == []


def test_a_value_that_is_none_of_the_possible_ones_is_found() -> None:
    declared = [Declaration("SIZE", possible_values=("text:s", "text:l"))]
    assert inputs.impossible(declared, {"SIZE": "text:m"}) == [("SIZE", "text:s, text:l")]
    assert inputs.impossible(declared, {"SIZE": "text:l"}) == []


def test_credentials_are_found_in_arrays_too() -> None:
    assert inputs.credentials(["cred:a", "text:cred:b", 'array:["text:x","cred:c"]']) == {"a", "c"}


def test_what_is_checked_comes_back() -> None:
    given = {"A": "text:", "B": 'array:["text:a","cred:b"]', "C": "ignore"}
    assert inputs.check(given, "inputs") == given


@pytest.mark.parametrize(
    ("name", "value"),
    [("A", "8080"), ("A", "text:" + "x" * 131_072), ("A-B", "blank"), ("TWINLINE_RUN", "blank"), ("PPID", "text:1")],
)
def test_what_the_executor_would_refuse_is_refused_by_name_and_field(name: str, value: str) -> None:
    with pytest.raises(InvalidArgument, match=f"input '{name}'") as refusal:
        inputs.check({"FINE": "text:a", name: value}, "next.inputs")
    assert refusal.value.metadata == {"field": "next.inputs"}
