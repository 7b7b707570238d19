"""What a script says about itself: the metadata comment, or else the variables that its text uses.

The comment is a YAML document in comment lines (`#`, `//` or `--`) from a line `---` to a line `...`. It is read
strictly: an unknown key is an error, so that a misspelt one does not pass in silence. Errors name the script's line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from twinline_executor.errors import ScriptHeaderMalformed, ScriptTooLarge
from twinline_executor.inputs import Declaration
from twinline_kit import values

MAX_SOURCE = 1 << 20
MAX_HEADER = 64 * 1024

_OPENING = re.compile(r"\s*(#|//|--)([ \t]*)---\s*$")
_VARIABLE = re.compile(
    r"""\$ENV\{['"]?([A-Z][A-Z0-9_]*)['"]?\} | \$env:([A-Z][A-Z0-9_]*) | \bENV\[['"]([A-Z][A-Z0-9_]*)['"]\]
      | \$\{?([A-Z][A-Z0-9_]*)\b""",
    re.VERBOSE,
)
_SHELL_NAMES = frozenset(
    "BASH BASHPID BASH_LINENO BASH_SOURCE BASH_VERSION COLUMNS DISPLAY EDITOR EUID FUNCNAME HOME HOSTNAME HOSTTYPE "
    "IFS LANG LANGUAGE LC_ALL LINENO LINES LOGNAME MACHTYPE MAIL OLDPWD OPTARG OPTIND OSTYPE PAGER PATH PIPESTATUS "
    "PPID PS1 PS2 PS4 PWD RANDOM REPLY SECONDS SHELL SHELLOPTS SHLVL TERM TMPDIR TRACEPARENT TZ UID USER".split()
)
_RESERVED = ("RS_", "EC2_", "TWINLINE_")
_TOP_KEYS = ("RightScript Name", "Description", "Packages", "Inputs", "Attachments")
_NOT_CARRIED = {
    "Packages": "install them in the script",
    "Attachments": "let the script fetch them",
}
"""Keys that a script may have when they are empty, and what to do instead: without them it would not be itself."""
_INPUT_KEYS = (
    "Category", "Description", "Input Type", "Required", "Advanced", "Default", "Possible Values",
)  # fmt: skip
_BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True)
class Header:
    """What was read. Without a metadata comment, `declared` is false and the inputs are guessed from the text."""

    name: str = ""
    description: str = ""
    inputs: tuple[Declaration, ...] = ()
    declared: bool = False


@dataclass(frozen=True)
class Finding:
    """Something wrong or risky, and its line, from 1."""

    line: int
    message: str
    error: bool


def read(source: bytes) -> Header:
    """Read a script's header. Raises ScriptHeaderMalformed with the line, or ScriptTooLarge."""
    if len(source) > MAX_SOURCE:
        raise ScriptTooLarge(
            f"the script has {len(source)} bytes, more than {MAX_SOURCE}; let it fetch its bulk",
            bytes=str(len(source)),
        )
    lines = source.decode("utf-8", "replace").splitlines()
    for index, line in enumerate(lines):
        if opening := _OPENING.match(line):
            return _Reader(index + 2).header(_document(lines, index, opening))
    return Header(inputs=tuple(_detect("\n".join(lines))))


def lint(source: bytes) -> list[Finding]:
    """Everything that `read` would refuse, and what it accepts but may surprise."""
    findings = []
    try:
        header = read(source)
        if not header.declared and header.inputs:
            names = ", ".join(declaration.name for declaration in header.inputs)
            findings.append(Finding(1, f"no metadata comment: inputs guessed from the text are {names}", False))
    except ScriptHeaderMalformed as error:
        findings.append(Finding(int(error.metadata["line"]), error.message, True))
    except ScriptTooLarge as error:
        findings.append(Finding(1, error.message, True))
    return findings + list(_risks(source))


def _risks(source: bytes) -> Iterator[Finding]:
    first = source.split(b"\n", 1)[0]
    if first.startswith(b"\xef\xbb\xbf"):
        yield Finding(1, "a byte order mark hides the first line from the kernel; save it without one", False)
    if source and not first.removeprefix(b"\xef\xbb\xbf").startswith(b"#!"):
        yield Finding(1, "no #! line: it will run with /bin/bash -e, or /bin/sh -e where there is no bash", False)
    for number, line in enumerate(source.splitlines(keepends=True), 1):
        if line.endswith(b"\r\n"):
            yield Finding(number, "lines end in CR LF, which shells take as part of the last word", False)
            return


def _document(lines: list[str], index: int, opening: re.Match[str]) -> str:
    """The YAML text between the markers, one line for each of the script's, signs taken off."""
    sign, indent = opening.group(1), opening.group(2)
    document: list[str] = []
    size = 0
    for number, line in enumerate(lines[index + 1 :], index + 2):
        text = line.strip()
        if not text.startswith(sign):
            raise _malformed("the metadata comment stops without a line of three dots", number)
        text = text[len(sign) :]
        text = text.removeprefix(indent) if text.startswith(indent) else text.lstrip()
        if text.rstrip() == "...":
            return "\n".join(document)
        document.append(text)
        size += len(text)
        if size > MAX_HEADER:
            raise _malformed(f"the metadata comment is longer than {MAX_HEADER} characters", number)
    raise _malformed("the metadata comment has no line of three dots at its end", index + 1)


def _malformed(what: str, line: int) -> ScriptHeaderMalformed:
    return ScriptHeaderMalformed(f"line {line}: {what}", line=str(line))


class _Reader:
    """Walks the YAML nodes, which know their lines."""

    def __init__(self, first_line: int) -> None:
        self._first = first_line

    def header(self, document: str) -> Header:
        root = self._compose(document)
        keys = self._mapping(root, "the metadata", _TOP_KEYS)
        if "Inputs" not in keys:
            raise self._wrong(root, "the metadata has no Inputs; write `Inputs: {}` for a script that takes none")
        for key, instead in _NOT_CARRIED.items():
            if key in keys and _holds(keys[key]):
                raise self._wrong(keys[key], f"{key} do not reach servers; {instead}, and leave {key} empty")
        return Header(
            name=self._text(keys, "RightScript Name"),
            description=self._text(keys, "Description"),
            inputs=self._inputs(keys["Inputs"]),
            declared=True,
        )

    def _compose(self, document: str) -> Node:
        try:
            root: Node | None = yaml.compose(document, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = self._first + (mark.line if mark else 0)
            raise _malformed(f"the metadata is no YAML: {error.problem or error.context}", line) from None
        except (yaml.YAMLError, RecursionError):
            raise _malformed("the metadata is no YAML that can be read", self._first) from None
        if root is None:
            raise _malformed("the metadata is empty; write at least `Inputs: {}`", self._first)
        return root

    def _inputs(self, node: Node) -> tuple[Declaration, ...]:
        if isinstance(node, ScalarNode) and not node.value:
            return ()
        named = self._mapping(node, "Inputs", None)
        return tuple(self._input(name, declaration) for name, declaration in named.items())

    def _input(self, name: str, node: Node) -> Declaration:
        try:
            values.check_name(name)
        except ValueError as error:
            raise self._wrong(node, f"input {name!r} {error}") from None
        keys = self._mapping(node, f"input {name}", _INPUT_KEYS)
        if self._text(keys, "Input Type") not in ("", "single", "array"):
            raise self._wrong(keys["Input Type"], f"Input Type of {name} is neither single nor array")
        return Declaration(
            name=name,
            category=self._text(keys, "Category"),
            description=self._text(keys, "Description"),
            required=self._boolean(keys, "Required"),
            advanced=self._boolean(keys, "Advanced"),
            default=self._value(keys["Default"]) if "Default" in keys else "",
            possible_values=self._possible_values(keys),
        )

    def _possible_values(self, keys: dict[str, Node]) -> tuple[str, ...]:
        return tuple(self._value(node) for node in self._sequence(keys, "Possible Values"))

    def _value(self, node: Node) -> str:
        value = self._scalar(node, "a value")
        try:
            values.parse(value)
        except ValueError as error:
            raise self._wrong(node, f"{value!r} {error}") from None
        if value == "text:":
            raise self._wrong(node, "`text:` has no text; write `blank` for an empty value or `ignore` for none")
        return value

    def _mapping(self, node: Node, what: str, known: tuple[str, ...] | None) -> dict[str, Node]:
        if not isinstance(node, MappingNode):
            raise self._wrong(node, f"{what} is not a mapping of keys to values")
        keys: dict[str, Node] = {}
        for key, value in node.value:
            name = self._scalar(key, "a key")
            if name in keys:
                raise self._wrong(key, f"{what} has {name!r} twice")
            if known is not None and name not in known:
                raise self._wrong(key, f"{what} has an unknown key {name!r}; known are {', '.join(known)}")
            keys[name] = value
        return keys

    def _text(self, keys: dict[str, Node], key: str) -> str:
        return self._scalar(keys[key], key).strip() if key in keys else ""

    def _sequence(self, keys: dict[str, Node], key: str) -> list[Node]:
        node = keys.get(key)
        if node is None:
            return []
        if not isinstance(node, SequenceNode):
            raise self._wrong(node, f"{key} is not a list")
        return list(node.value)

    def _boolean(self, keys: dict[str, Node], key: str) -> bool:
        text = self._text(keys, key).lower()
        if text and text not in _BOOLEANS:
            raise self._wrong(keys[key], f"{key} is neither true nor false")
        return _BOOLEANS.get(text, False)

    def _scalar(self, node: Node, what: str) -> str:
        if not isinstance(node, ScalarNode):
            raise self._wrong(node, f"{what} is not a text")
        return str(node.value)

    def _wrong(self, node: Node, what: str) -> ScriptHeaderMalformed:
        return _malformed(what, self._first + node.start_mark.line)


def _holds(node: Node) -> bool:
    return node.value.strip() not in ("", "~", "null") if isinstance(node, ScalarNode) else bool(node.value)


def _detect(text: str) -> Iterator[Declaration]:
    seen = set()
    for match in _VARIABLE.finditer(text):
        name = next(filter(None, match.groups()))
        if name not in seen and name not in _SHELL_NAMES and not name.startswith(_RESERVED):
            seen.add(name)
            yield Declaration(name, detected=True)
