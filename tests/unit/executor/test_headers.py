"""Metadata comments of scripts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinline_executor import headers
from twinline_executor.errors import ScriptHeaderMalformed, ScriptTooLarge
from twinline_executor.inputs import Declaration

FULL = b"""#!/bin/bash -e
# ---
# RightScript Name: Install app
# Description: |
#   First line.
#   Second line.
# Packages: ""
# Inputs:
#   APP_PORT:
#     Category: Application
#     Description: TCP port to listen on
#     Input Type: single
#     Required: true
#     Advanced: false
#     Default: text:8080
#     Possible Values: ["text:8080","text:8443"]
#   PASSWORD:
#     Advanced: yes
#     Default: cred:APP_PASSWORD
#   HOSTS:
#     Input Type: array
#     Default: array:["text:a","text:b"]
# Attachments: []
# ...
echo $OTHER
"""


def test_a_full_header_is_read() -> None:
    header = headers.read(FULL)
    assert (header.name, header.description) == ("Install app", "First line.\nSecond line.")
    assert header.inputs == (
        Declaration(
            "APP_PORT", "Application", "TCP port to listen on", required=True, default="text:8080",
            possible_values=("text:8080", "text:8443"),
        ),
        Declaration("PASSWORD", advanced=True, default="cred:APP_PASSWORD"),
        Declaration("HOSTS", default='array:["text:a","text:b"]'),
    )  # fmt: skip


@pytest.mark.parametrize("sign", ["#", "//", "--"])
def test_comments_of_other_languages_hold_headers_too(sign: str) -> None:
    lines = ["---", "RightScript Name: x", "Inputs:", "  PORT:", "    Required: true", "..."]
    source = "\n".join(f"  {sign} {line}" for line in lines).encode()
    assert headers.read(source).inputs == (Declaration("PORT", required=True),)


@pytest.mark.parametrize(
    ("lines", "number", "message"),
    [
        (["---", "Inputs: {}"], 2, "no line of three dots at its end"),
        (["---", "Inputs: {}", "echo", "..."], 4, "stops without a line of three dots"),
        (["---", "Name: x", "Inputs: {}", "..."], 3, "unknown key 'Name'"),
        (["---", "Description: x", "..."], 3, "has no Inputs"),
        (["---", "..."], 3, "is empty"),
        (["---", "Inputs: {}", "Packages: [", "Attachments: x", "..."], 5, "is no YAML"),
        (["---", "Inputs:", "  A B:", "    Required: true", "..."], 5, "no environment variable can have"),
        (["---", "Inputs:", "  A:", "    Colour: red", "..."], 5, "unknown key 'Colour'"),
        (["---", "Inputs:", "  A:", "    Required: maybe", "..."], 5, "neither true nor false"),
        (["---", "Inputs:", "  A:", "    Default: 8080", "..."], 5, "is not text:"),
        (["---", "Inputs:", "  A:", '    Default: "text:"', "..."], 5, "write `blank`"),
        (["---", "Inputs:", "  A: {}", "  A: {}", "..."], 5, "has 'A' twice"),
        (["---", "Inputs:", "  A:", "    Possible Values: text:1", "..."], 5, "is not a list"),
        (["---", "Inputs: 3", "..."], 3, "not a mapping"),
        (["---", "Inputs: {}", "Description: [x]", "..."], 4, "is not a text"),
        (["---", "- Inputs", "..."], 3, "not a mapping"),
        (["---", "Inputs: {}", 'Packages: "curl jq"', "..."], 4, "Packages do not reach servers; install them"),
        (["---", "Packages: [curl]", "Inputs: {}", "..."], 3, "Packages do not reach servers"),
        (["---", "Inputs: {}", "Attachments:", "  - app.tgz", "..."], 5, "let the script fetch them"),
        (["---", "Inputs: {}", "Attachments: app.tgz", "..."], 4, "Attachments do not reach servers"),
        (["---", "Inputs:", "  A:", "    Input Type: list", "..."], 5, "neither single nor array"),
    ],
)
def test_a_mistake_is_named_with_the_script_s_own_line(lines: list[str], number: int, message: str) -> None:
    source = "#!/bin/sh\n" + "\n".join(line if line == "echo" else f"# {line}" for line in lines)
    with pytest.raises(ScriptHeaderMalformed, match=f"line {number}: .*{message}") as refused:
        headers.read(source.encode())
    assert refused.value.metadata["line"] == str(number)


def test_without_a_header_inputs_are_guessed_from_the_text() -> None:
    source = b"""echo $APP_PORT ${DB_HOST:-x} $PATH $HOME $RS_REBOOT $EC2_ID $lower $APP_PORT
    ENV['RUBY_ONE'] $ENV{'PERL_ONE'} $env:SHELL_ONE"""
    found = headers.read(source).inputs
    assert [each.name for each in found] == ["APP_PORT", "DB_HOST", "RUBY_ONE", "PERL_ONE", "SHELL_ONE"]
    assert all(each.detected and not each.required for each in found)


@pytest.mark.parametrize("line", ["Packages:", 'Packages: ""', "Packages: []", "Attachments:", "Attachments: []"])
def test_what_is_not_carried_may_be_named_when_it_is_empty(line: str) -> None:
    assert headers.read(f"#!/bin/sh\n# ---\n# Inputs: {{}}\n# {line}\n# ...\n".encode()).declared


def test_a_decoration_is_no_header() -> None:
    assert not headers.read(b"#!/bin/sh\n# ------\n# hello\n# --- x\n").declared


def test_too_much_is_refused() -> None:
    with pytest.raises(ScriptTooLarge):
        headers.read(bytes(headers.MAX_SOURCE + 1))
    with pytest.raises(ScriptHeaderMalformed, match="longer than"):
        headers.read(b"# ---\n" + b"# x: y\n" * 20_000 + b"# ...\n")


@given(st.lists(st.text(alphabet="ab:[]{}-&*!|>'\"# \t", max_size=20), max_size=10))
def test_any_header_is_read_or_refused_with_a_line(lines: list[str]) -> None:
    source = "\n".join(["# ---", *(f"# {line}" for line in lines), "# ..."])
    errors = [finding for finding in headers.lint(source.encode()) if finding.error]
    assert all(1 <= finding.line <= len(lines) + 2 for finding in errors)
