"""The value syntax of inputs."""

import pytest

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
    ["", "x", "Text:x", "cred:", "cred:a b", "cred:a\n", "env:X", "key:1", "array:x", 'array:["x"]', "array:[1]",
     'array:["ignore"]', 'array:["array:[]"]', "array:" + "[" * 100_000, "array:[" + '"blank",' * 1000 + '"blank"]',
     "text:\0"],
)  # fmt: skip
def test_anything_else_is_no_value(value: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has|holds)"):
        values.parse(value)


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A\n", "É", "TWINLINE_RUN", "TRACEPARENT", "PPID", "UID"])
def test_a_name_that_no_script_can_have_as_an_input_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^has a name"):
        values.check_name(name)


def test_a_variable_is_as_large_as_linux_takes_and_no_larger() -> None:
    room = values.LARGEST - len("NAME=\0")
    values.check("NAME", "text:" + "x" * room)
    for larger in ("text:" + "x" * (room + 1), 'array:["text:' + "x" * room + '","blank"]'):
        with pytest.raises(ValueError, match="128 KiB"):
            values.check("NAME", larger)


def test_every_fault_is_said_by_name_and_the_sum_too() -> None:
    many = {f"N{each}": "text:" + "x" * 130_000 for each in range(9)}
    assert dict(values.faults({"A": "text:a", "B": "b", "UID": "blank"})) == {
        "B": f"input 'B' is not {values.SYNTAX}",
        "UID": "input 'UID' has a name that shells let nobody set",
    }
    assert [name for name, _ in values.faults(many)] == ["inputs"]
