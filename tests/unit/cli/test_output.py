"""What reaches a terminal and what reaches a program."""

import json
import sys

import pytest
import yaml

from twinline.keys.v1 import cloud_keys_pb2 as pb
from twinline_cli import keys, terminal
from twinline_cli.formats import Format
from twinline_cli.output import emit, show_list, show_one

KEY = pb.CloudKey(id="key-1", name="web", fingerprint="SHA256:abc")


def test_control_characters_are_written_out() -> None:
    assert terminal.escape("a\x1b[31m\u202eb\n") == "a\\x1b[31m\\u202eb\\n"


def test_an_error_is_one_line_whatever_is_in_it() -> None:
    assert terminal.one_line("first\r\n  second\x07") == "first second\\x07"


def test_wide_characters_take_two_columns() -> None:
    assert terminal.width("日本x") == 5


def test_colours_stay_out_of_pipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert terminal.colour("ok", terminal.GREEN) == "ok"


def test_a_list_is_an_array_with_snake_case_names_and_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    show_list([KEY], keys.COLUMNS, Format.JSON, empty="")
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["has_material"] is False
    assert shown["fingerprint"] == "SHA256:abc"


def test_jsonl_is_one_line_an_item(capsys: pytest.CaptureFixture[str]) -> None:
    show_list([KEY, KEY], keys.COLUMNS, Format.JSONL, empty="")
    assert [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()] == ["web", "web"]


def test_yaml_can_be_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    show_one(KEY, keys.DETAILS, Format.YAML)
    assert yaml.safe_load(capsys.readouterr().out)["id"] == "key-1"


def test_columns_are_aligned_and_names_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    show_list([KEY, pb.CloudKey(name="\x1b]0;evil\x07")], keys.COLUMNS, Format.TABLE, empty="")
    heading, first, second = capsys.readouterr().out.splitlines()
    assert "\x1b" not in second
    assert heading.index("MATERIAL") == first.index("no") == second.index("no")


def test_an_empty_list_tells_a_person_what_to_do_and_a_program_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    show_list([], keys.COLUMNS, Format.TABLE, empty="make one")
    show_list([], keys.COLUMNS, Format.JSON, empty="make one")
    said = capsys.readouterr()
    assert (said.err, json.loads(said.out)) == ("make one\n", [])


@pytest.mark.parametrize("form", list(Format))
def test_every_format_shows_one_thing(form: Format, capsys: pytest.CaptureFixture[str]) -> None:
    show_one(KEY, keys.DETAILS, form)
    assert "SHA256:abc" in capsys.readouterr().out


@pytest.mark.parametrize("form", [Format.JSON, Format.JSONL, Format.YAML])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_gets_no_character_that_it_might_obey(
    form: Format, terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    emit({"text": "näme \u009b31m \u202e"}, form)
    out = capsys.readouterr().out
    assert ("\u202e" in out, "ä" in out) == (not terminal, not terminal)
    assert "\u009b" not in out or not terminal
    read = yaml.safe_load if form is Format.YAML else json.loads
    assert read(out) == {"text": "näme \u009b31m \u202e"}
