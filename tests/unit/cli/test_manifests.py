"""YAML files: strict, and with the line of what is wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest

from twinline_cli.errors import CliError
from twinline_cli.manifests import Document, Reference, load

Read = Callable[[str], list[Document]]

SERVER = "kind: Server\nname: web\ndeployment: site\ntemplate: t\nimage: i\n"


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def write_and_load(text: str) -> list[Document]:
        file = tmp_path / "it.yaml"
        file.write_text(text)
        return load(file)

    return write_and_load


def test_documents_come_in_an_order_in_which_they_can_be_applied(read: Read) -> None:
    documents = read(f"{SERVER}---\nkind: Deployment\nname: site\n---\nkind: CloudKey\nname: k\n")
    assert [document.kind for document in documents] == ["CloudKey", "Deployment", "Server"]


def test_a_script_reference_may_name_a_revision(read: Read) -> None:
    (template,) = read("kind: ServerTemplate\nname: t\nboot: [a, {script: b, revision: 3}]\n")
    assert template.fields["boot"] == [Reference("a"), Reference("b", 3)]


def test_texts_stay_as_they_are_written(read: Read) -> None:
    (deployment,) = read("kind: Deployment\nname: 007\ninputs: {PORT: text:08, ON: yes}\n")
    assert (deployment.fields["name"], deployment.fields["inputs"]) == ("007", {"PORT": "text:08", "ON": "yes"})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("name: web\n", "it.yaml:1: this document has no kind"),
        ("kind: Sever\nname: web\n", "it.yaml:1: unknown kind Sever; did you mean Server?"),
        (f"{SERVER}templat: x\n", "it.yaml:6: Server has no field templat; did you mean template?"),
        ("kind: Server\nname: web\n", "it.yaml:1: this Server needs deployment and template and image"),
        ("kind: Deployment\nname: a\n---\nkind: Deployment\n", "it.yaml:4: this Deployment needs name"),
        (f"{SERVER}tags: one\n", "it.yaml:6: want a list here"),
        (f"{SERVER}name: two\n", "it.yaml:6: name is given twice"),
        ("kind: SecurityGroup\nname: a\ncloud: local\nopen_ports: [ssh]\n", "it.yaml:4: ssh is not a port"),
        ("kind: SecurityGroup\nname: a\ncloud: local\nopen_ports: [70000]\n", "it.yaml:4: 70000 is not a port"),
        ("kind: Image\nname: a\ncloud: local\ngeneration: v6\n", "it.yaml:4: generation is v4 or v5, not v6"),
        ("kind: Deployment\nname: [a\n", "it.yaml:3: this is no YAML"),
        ("- a\n", "it.yaml:1: want `name: value` lines"),
        ("kind: ServerTemplate\nname: t\nboot:\n- {scrip: a}\n", "it.yaml:4: a script reference has no field scrip"),
        ("# nothing\n", "has no documents"),
        ("kind: Deployment\nname:\n", "it.yaml:2: want a text here"),
        ('kind: Deployment\nname: "\\ud800"\n', "it.yaml:2: this text has half of a character"),
        (f"{SERVER}---\n{SERVER}", "it.yaml:7: Server web is given at "),
    ],
)
def test_what_is_wrong_is_told_with_its_line(read: Read, text: str, why: str) -> None:
    with pytest.raises(CliError) as refused:
        read(text)
    assert why in refused.value.message
    assert "\n" not in refused.value.message
