"""Selectors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinline_executor import selectors
from twinline_executor.errors import SelectorMalformed
from twinline_executor.rows import Target

TARGETS = [
    Target("1", "web-1", 4, "prod", "operational", ("role=web", "env=prod")),
    Target("2", "web-2", 5, "prod", "stranded", ("role=web",)),
    Target("3", "db 1", 4, "", "operational", ("role=db",)),
]


@pytest.mark.parametrize(
    ("selector", "ids"),
    [
        ("", "123"),
        ("   ", "123"),
        ("name:web-*", "12"),
        ("name:web-?", "12"),
        ("name:web-1", "1"),
        ("name:WEB-1", ""),
        ('name:"db 1"', "3"),
        ("tag:role=web", "12"),
        ("tag:env=*", "1"),
        ("deployment:prod", "12"),
        ("deployment:", "3"),
        ("generation:v4", "13"),
        ("state:operational", "13"),
        ("not state:operational", "2"),
        ("state:OPERATIONAL", "13"),
        ("state:Strand*", "2"),
        ("deployment:PROD", ""),
        ("generation:V5", "2"),
        ("not not state:operational", "13"),
        ("generation:v4 and tag:role=web", "1"),
        ("generation:v5 or tag:role=db", "23"),
        ("name:web-1 or name:web-2 and generation:v4", "1"),
        ("(name:web-1 or name:web-2) and generation:v5", "2"),
        ("NAME:web-1 OR not(name:web-*)", "13"),
    ],
)
def test_a_selector_picks(selector: str, ids: str) -> None:
    picks = selectors.parse(selector)
    assert "".join(target.id for target in TARGETS if picks(target)) == ids


@pytest.mark.parametrize(
    ("selector", "column"),
    [
        ("web-1", 1), ("colour:red", 1), ("name:", 1), ("name:a name:b", 8), ("name:a and", 11), ("(name:a", 8),
        ("name:a)", 7), ("name:a or or name:b", 11), ("generation:v6", 1), ('name:"a', 6), ("not", 4), ("  and", 3),
        ("(" * 80 + "name:a" + ")" * 80, 65),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_column(selector: str, column: int) -> None:
    with pytest.raises(SelectorMalformed, match=f"column {column}:") as refused:
        selectors.parse(selector)
    assert refused.value.metadata["column"] == str(column)


@pytest.mark.parametrize(
    ("selector", "hint"),
    [
        ("state:operatonal", "no target has the state operatonal: the states are operational and stranded"),
        ("deployment:stie and tag:role=web", "no target has the deployment stie: the only deployment is prod"),
        ("tag:rule=*", "no target has the tag rule=*: the tags are env=prod, role=db and role=web"),
        ("name:web-9", ""),
        ("state:stranded and generation:v4", ""),
    ],
)
def test_what_nobody_has_is_named_with_what_there_is_instead(selector: str, hint: str) -> None:
    assert selectors.instead(selector, TARGETS) == hint


def test_of_many_values_the_first_are_named() -> None:
    many = [Target(str(number), f"web-{number}", 4, tags=(f"n={number:02}",)) for number in range(12)]
    assert selectors.instead("tag:x", many).endswith("n=08, n=09 and 2 more")
    assert selectors.instead("tag:x", []) == ""


@given(st.text(alphabet='nameortdv45:=*()" -', max_size=40))
def test_any_text_is_a_selector_or_a_typed_mistake(text: str) -> None:
    try:
        picks = selectors.parse(text)
    except SelectorMalformed:
        return
    for target in TARGETS:
        assert picks(target) in (True, False)
