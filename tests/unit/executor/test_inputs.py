"""The value syntax of inputs."""

import json

import pytest

from twinline_executor import inputs
from twinline_executor.errors import InputMissing, InputTooLarge
from twinline_executor.inputs import Declaration
from twinline_kit import values

SECRETS = {"A": "one", "B": "two"}


@pytest.mark.parametrize(
    ("value", "opened"),
    [
        ("text:x", "x"),
        ("text:", ""),
        ("text:a:b\n", "a:b\n"),
        ("blank", ""),
        ("cred:A", "one"),
        ('array:["text:x","cred:B","blank"]', "x,two,"),
        ("array:[]", ""),
    ],
)
def test_a_value_is_opened(value: str, opened: str) -> None:
    parsed = values.parse(value)
    assert parsed is not None
    assert parsed.open(SECRETS) == opened


def test_ignore_is_no_value() -> None:
    assert values.parse("ignore") is None


@pytest.mark.parametrize(
    "value",
    ["", "x", "Text:x", "cred:", "cred:a b", "env:X", "key:1", "array:x", 'array:["x"]', 'array:["ignore"]',
     'array:["array:[]"]', "array:[1]", "array:" + json.dumps(["blank"] * 1001), "text:\0", "text:" + "x" * 200_000],
)  # fmt: skip
def test_anything_else_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has|holds)"):
        values.parse(value)


def test_defaults_are_filled_in_and_what_is_given_stands() -> None:
    declared = [Declaration("A", default="text:1"), Declaration("B", default="text:2"), Declaration("C")]
    assert inputs.resolve(declared, {"A": "blank", "X": "text:x"}) == {"A": "blank", "B": "text:2", "X": "text:x"}


def test_all_that_is_missing_is_named_at_once() -> None:
    declared = [Declaration("A", required=True), Declaration("B", required=True), Declaration("C", required=True)]
    with pytest.raises(InputMissing, match="A, C") as refused:
        inputs.resolve(declared, {"B": "blank", "C": "ignore"})
    assert [violation.subject for violation in refused.value.violations] == ["A", "C"]


def test_a_required_input_with_a_default_need_not_be_given() -> None:
    assert inputs.resolve([Declaration("A", required=True, default="text:1")], {}) == {"A": "text:1"}


@pytest.mark.parametrize("env", [{"A": "x" * 131_073}, {f"A{n}": "x" * 131_072 for n in range(8)}])
def test_what_no_line_carries_is_refused(env: dict[str, str]) -> None:
    inputs.check_size({"A": "x" * 131_072})
    with pytest.raises(InputTooLarge):
        inputs.check_size(env)
