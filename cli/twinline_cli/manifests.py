"""YAML files that say what there should be: read strictly, with the line of everything that is wrong."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from twinline_cli.errors import CliError
from twinline_cli.naming import near


@dataclass(frozen=True)
class Reference:
    """A script at a revision; the newest when 0."""

    script: str
    revision: int = 0


@dataclass(frozen=True)
class Document:
    """One thing that should be. Fields that were left out have their defaults."""

    kind: str
    fields: Mapping[str, Any]
    file: Path
    line: int

    @property
    def where(self) -> str:
        """`file:line`, for messages."""
        return f"{self.file}:{self.line}"


Where = Callable[[yaml.Node], str]
Read = Callable[[yaml.Node, Where], Any]


def text(node: yaml.Node, where: Where) -> str:
    """A scalar as it is written."""
    if not isinstance(node, yaml.ScalarNode) or node.tag == "tag:yaml.org,2002:null":
        raise CliError(f"{where(node)}: want a text here")
    written = str(node.value)
    try:
        written.encode()
    except UnicodeEncodeError:
        raise CliError(f"{where(node)}: this text has half of a character; write it in UTF-8") from None
    return written


def texts(node: yaml.Node, where: Where) -> list[str]:
    """A list of scalars."""
    return [text(item, where) for item in _items(node, where)]


def ports(node: yaml.Node, where: Where) -> list[int]:
    """A list of TCP ports."""
    return [_number(item, where, "a port", 1, 65535) for item in _items(node, where)]


def values(node: yaml.Node, where: Where) -> dict[str, str]:
    """A mapping of names to texts."""
    return {name: text(value, where) for name, (_, value) in _pairs(node, where).items()}


def references(node: yaml.Node, where: Where) -> list[Reference]:
    """A list of scripts: a name, or `{script: NAME, revision: N}`."""
    return [_reference(item, where) for item in _items(node, where)]


def generation(node: yaml.Node, where: Where) -> str:
    """`v4` or `v5`."""
    word = text(node, where)
    if word not in ("v4", "v5"):
        raise CliError(f"{where(node)}: generation is v4 or v5, not {word}")
    return word


@dataclass(frozen=True)
class Field:
    """How a field is read, and whether it must be there."""

    read: Read
    is_required: bool = False


NAME = {"name": Field(text, is_required=True)}

KINDS: Mapping[str, Mapping[str, Field]] = {
    "CloudKey": {**NAME, "public_key": Field(text), "public_key_file": Field(text)},
    "Script": {"name": Field(text), "file": Field(text), "source": Field(text)},
    "Image": {
        **NAME,
        "cloud": Field(text, is_required=True),
        "cloud_image": Field(text),
        "generation": Field(generation),
    },
    "SecurityGroup": {**NAME, "cloud": Field(text, is_required=True), "open_ports": Field(ports)},
    "ServerTemplate": {
        **NAME,
        "description": Field(text),
        "boot": Field(references),
        "operational": Field(references),
        "decommission": Field(references),
        "inputs": Field(values),
    },
    "Deployment": {**NAME, "description": Field(text), "inputs": Field(values)},
    "Server": {
        **NAME,
        "deployment": Field(text, is_required=True),
        "template": Field(text, is_required=True),
        "image": Field(text, is_required=True),
        "instance_type": Field(text),
        "cloud_key": Field(text),
        "security_groups": Field(texts),
        "inputs": Field(values),
        "tags": Field(texts),
    },
}
"""Every kind and its fields, in the order in which they can be applied: what is named comes before what names it."""


def load(*files: Path) -> list[Document]:
    """All documents of the files in the order of `KINDS`. A CliError names the file and the line of what is wrong."""
    documents = [document for file in files for document in _read(file)]
    _refuse_twice(documents)
    return sorted(documents, key=lambda document: list(KINDS).index(document.kind))


def given_twice(document: Document, name: str, first: Document) -> CliError:
    """That `document` is of the same kind and name as an earlier one."""
    return CliError(f"{document.where}: {document.kind} {name} is given at {first.where} already; keep one of them")


def _refuse_twice(documents: Iterable[Document]) -> None:
    seen: dict[tuple[str, str], Document] = {}
    for document in documents:
        if name := document.fields.get("name", ""):
            first = seen.setdefault((document.kind, name), document)
            if first is not document:
                raise given_twice(document, name, first)


def _read(file: Path) -> list[Document]:
    try:
        content = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CliError(f"{file} is no text file; name a YAML file") from None
    try:
        nodes = [node for node in yaml.compose_all(content, yaml.SafeLoader) if node is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise CliError(f"{file}:{line}: this is no YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise CliError(f"{file}: this is no YAML: {error}") from error
    if not nodes:
        raise CliError(f"{file} has no documents; each begins with `kind:`, one of {', '.join(KINDS)}")
    return [_document(node, file) for node in nodes]


def _document(node: yaml.Node, file: Path) -> Document:
    def where(at: yaml.Node) -> str:
        return f"{file}:{at.start_mark.line + 1}"

    pairs = _pairs(node, where)
    if "kind" not in pairs:
        raise CliError(f"{where(node)}: this document has no kind; give one of {', '.join(KINDS)}")
    kind = text(pairs["kind"][1], where)
    if kind not in KINDS:
        raise CliError(f"{where(pairs['kind'][1])}: unknown kind {kind}{near(kind, KINDS) or '; ' + ', '.join(KINDS)}")
    known, fields = KINDS[kind], {}
    for name, (key, value) in pairs.items():
        if name == "kind":
            continue
        if name not in known:
            hint = near(name, known) or f"; it has {', '.join(known)}"
            raise CliError(f"{where(key)}: {kind} has no field {name}{hint}")
        fields[name] = known[name].read(value, where)
    missing = [name for name, field in known.items() if field.is_required and not fields.get(name)]
    if missing:
        raise CliError(f"{where(node)}: this {kind} needs {' and '.join(missing)}")
    return Document(kind, fields, file, node.start_mark.line + 1)


def _reference(node: yaml.Node, where: Where) -> Reference:
    if isinstance(node, yaml.ScalarNode):
        return Reference(text(node, where))
    pairs = _pairs(node, where)
    for name, (key, _) in pairs.items():
        if name not in ("script", "revision"):
            raise CliError(f"{where(key)}: a script reference has no field {name}; it has script and revision")
    if "script" not in pairs:
        raise CliError(f"{where(node)}: this script reference names no script")
    revision = pairs.get("revision")
    number = _number(revision[1], where, "a revision", 0, 2**31 - 1) if revision else 0
    return Reference(text(pairs["script"][1], where), number)


def _number(node: yaml.Node, where: Where, what: str, lowest: int, highest: int) -> int:
    written = text(node, where)
    if not (written.isascii() and written.isdigit() and lowest <= int(written) <= highest):
        raise CliError(f"{where(node)}: {written} is not {what}; want a number from {lowest} to {highest}")
    return int(written)


def _items(node: yaml.Node, where: Where) -> list[yaml.Node]:
    if not isinstance(node, yaml.SequenceNode):
        raise CliError(f"{where(node)}: want a list here")
    return list(node.value)


def _pairs(node: yaml.Node, where: Where) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        raise CliError(f"{where(node)}: want `name: value` lines here")
    pairs: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in node.value:
        name = text(key, where)
        if name in pairs:
            raise CliError(f"{where(key)}: {name} is given twice; keep one of them")
        pairs[name] = (key, value)
    return pairs
