"""What a run makes of declared and given inputs."""

import pytest

from twinline_executor import inputs
from twinline_executor.errors import InputMissing, InputTooLarge
from twinline_executor.inputs import Declaration


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


@pytest.mark.parametrize("env", [{"A": "x" * 131_070}, {"A": "é" * 65_535}, {f"A{n}": "x" * 131_000 for n in range(8)}])
def test_what_no_line_carries_is_refused(env: dict[str, str]) -> None:
    inputs.check_size({"A": "x" * 131_069})
    with pytest.raises(InputTooLarge):
        inputs.check_size(env)
