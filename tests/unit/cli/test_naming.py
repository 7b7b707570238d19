"""Help for whoever misspelt a name."""

import pytest

from twinline_cli.naming import near


@pytest.mark.parametrize(
    ("name", "hint"), [("web-11", "; did you mean web-1?"), ("web-1", ""), ("nothing-like-it", "")]
)
def test_a_near_name_is_suggested_and_the_same_one_is_not(name: str, hint: str) -> None:
    assert near(name, ["web-1", "db-1"]) == hint
