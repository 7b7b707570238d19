"""The mistakes people make: one line, what to do, the right exit code, and never a traceback."""

import subprocess
from pathlib import Path

import pytest

from tests.suite.running import TWINLINE, Suite, environment

pytestmark = pytest.mark.timeout(180)

BROKEN = "#!/bin/sh\n# ---\n# RightScript Name: broken\n# Inpust: {}\n# ...\n"
ATTACHED = "#!/bin/sh\n# ---\n# RightScript Name: attached\n# Inputs: {}\n# Attachments: [app.tgz]\n# ...\n"
MISSING = "kind: ServerTemplate\nname: bad\nboot: [no-such-script]\n"

MISTAKES = [
    (["keyz"], 2, "did you mean 'keys'"),
    (["keys", "shwo"], 2, "did you mean 'show'"),
    (["keys", "show"], 2, "missing argument"),
    (["keys", "list", "-o", "xml"], 2, "xml"),
    (["keys", "show", "site-kye"], 2, "did you mean site-key?"),
    (["keys", "create", "site-key"], 3, "exists"),
    (["keys", "import", "k"], 2, "`twinline keys import k FILE`, or --fingerprint TEXT instead"),
    (["keys", "import", "k", "{broken}", "--fingerprint", "SHA256:x"], 2, "say which key it is"),
    (["keys", "import", "k", "{broken}"], 2, "public key"),
    (["keys", "import", "k", "{empty}"], 2, "empty.pub is empty; name the .pub file"),
    (["keys", "upload-material", "site-key", "{broken}"], 2, "no key that can be read"),
    (["keys", "upload-material", "site-key", "{folder}/none"], 2, "no such file"),
    (["credentials", "set", "empty"], 2, "is empty"),
    (["scripts", "push", "{broken}"], 2, "broken.sh:4: "),
    (["scripts", "push", "{folder}/attached.sh"], 2, "attached.sh:5: Attachments do not reach servers"),
    (["scripts", "push", "{folder}/nameless.sh"], 2, "it has no header with a name"),
    (["scripts", "push", "{folder}/nameless.sh"], 2, "give one with --name"),
    (["scripts", "show", "greet-visitr"], 2, "did you mean greet-visitor?"),
    (["scripts", "push", "{folder}"], 2, "is a folder"),
    (["apply", "-f", "{missing}"], 2, "no-such-script"),
    (["apply", "-f", "{broken}"], 2, "has no documents"),
    (["servers", "show", "web-11"], 2, "did you mean web-1?"),
    (["servers", "resume", "web-1"], 3, "inactive"),
    (["servers", "terminate", "web-1"], 3, "inactive"),
    (["servers", "launch", "web-1", "--input", "PORT=80"], 2, "PORT=text:80"),
    (["servers", "launch", "web-1", "--wait", "--timeout", "soon"], 2, "no duration"),
    (["servers", "launch", "web-1", "--wait", "--timeout", "0s"], 2, "--timeout 0s leaves no time"),
    (["servers", "launch", "web-1", "--timeout", "5m"], 2, "give --wait too"),
    (["servers", "watch", "web-11"], 2, "did you mean web-1?"),
    (["servers", "launch", "web-1", "web-11"], 2, "did you mean web-1?"),
    (
        ["servers", "launch", "web-1", "web-2", "--input", "SITE_NAME=ignore"],
        3,
        "nothing was launched; web-1: INPUT_MI",
    ),
    (["servers", "list", "--deployment", "stie"], 2, "did you mean site?"),
    (["run"], 2, "name a SCRIPT, or give a command"),
    (["run", "x", "-c", "true"], 2, "not both"),
    (["run", "-c", "ls", "-l", "--on", "name:web-1"], 2, "a command of several words is quoted: -c 'ls -l'"),
    (["run", "-c", "ls", "/tmp", "--on", "name:web-1"], 2, "a command of several words is quoted: -c 'ls /tmp'"),
    (["run", "uname -a", "--on", "name:*", "--plan"], 2, "to run it as a command: -c 'uname -a'"),
    (["run", "greet-visitor", "web-1"], 2, "say where with an option: --on name:web-1"),
    (["run", "greet-visitor", "web-1", "web-2"], 2, "--on 'name:web-1 or name:web-2'"),
    (["run", "greet-visitor", "web-1", "--on", "name:web-1"], 2, "nothing is known to do with web-1"),
    (["run", "-c", "true", "--onn", "name:web-1"], 2, "--on"),
    (["run", "./x.sh", "--on", "name:web-1"], 2, "`twinline scripts push ./x.sh`"),
    (["run", "-c", "true", "--revision", "2", "--on", "name:web-1"], 2, "a command has none"),
    (["run", "-c", "true", "--revision", "two", "--on", "name:web-1"], 2, "'--revision': want a whole number; see"),
    (["runs", "list", "--limit", "0"], 2, "'--limit': want 1 or more; see"),
    (["run", "-c", "true", "--on", "web-1"], 2, "did you mean name:web-1?"),
    (["run", "greet-visitr", "--on", "name:*", "--plan"], 2, "did you mean greet-visitor?"),
    (
        ["run", "greet-visitor", "--revision", "9", "--on", "name:*", "--plan"],
        2,
        "no revision 9 of script greet-visitor; `twinline scripts list` shows what there is\n",
    ),
    (["run", "greet-visitor", "--on", "name:*", "--plan"], 3, "VISITOR"),
    (["run", "-c", "true", "--on", "name:*", "--timeout", "0s"], 2, "--timeout 0s leaves no time"),
    (["run", "greet-visitor", "--on", "name:*", "--plan", "--input", "VISITER=text:x"], 2, "did you mean VISITOR?"),
    (["run", "-c", "true", "--on", "name:*", "--plan", "--input", "A B=text:x"], 2, "A B"),
    (["run", "-c", "true", "--on", "name:*", "--reach-timeout", "later"], 2, "no duration"),
    (["run", "-c", "true"], 2, "--on SELECTOR"),
    (["run", "-c", "true", "--on", "name:no-such-*"], 3, "no target matches"),
    (["run", "-c", "true", "--on", "nmae:web-1"], 2, "column 1"),
    (["run", "-c", "true", "--on", "name:no-such-*", "--plan"], 3, "no target matches"),
    (["runs", "show", "run-none"], 2, "run-none"),
    (["runs", "rerun", "run-none"], 2, "--only"),
    (["agents", "show", "agent-none"], 2, "no agent agent-none"),
    (["agents", "show", "web-1"], 2, "web-1 has no agent: it is a v4 server"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES, ids=[" ".join(each[0]) for each in MISTAKES])
def test_a_mistake_is_one_line_that_helps(
    suite: Suite, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    places = {"folder": tmp_path, "broken": tmp_path / "broken.sh", "missing": tmp_path / "missing.yaml"}
    places["empty"] = tmp_path / "empty.pub"
    places["empty"].touch()
    places["broken"].write_text(BROKEN)
    (tmp_path / "nameless.sh").write_text("#!/bin/sh\n")
    (tmp_path / "attached.sh").write_text(ATTACHED)
    places["missing"].write_text(MISSING)
    done = suite(*[argument.format(**places) for argument in arguments])
    assert done.errors.startswith("twinline: ")
    assert done.errors.count("\n") == 1
    assert words in done.errors
    assert done.code == code


def test_a_file_that_is_taken_for_a_stored_script_is_told_apart(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "größe.sh").write_text("#!/bin/sh\n")
    monkeypatch.chdir(tmp_path)
    done = suite("run", "größe.sh", "--on", "name:*", "--plan")
    assert (done.code, "größe.sh is a file here: store it with `twinline scripts push " in done.errors) == (2, True)


@pytest.mark.parametrize(
    "arguments", [("servers", "show", b"we\xff"), ("run", "-c", b"echo \xff"), ("run", "x", "--input", b"V=text:\xff")]
)
def test_an_argument_that_is_no_text_is_refused(suite: Suite, arguments: tuple[str | bytes, ...]) -> None:
    command = [*TWINLINE, *arguments, "--on", "name:web-1"]
    done = subprocess.run(command, check=False, env=environment(suite.home), capture_output=True, timeout=30)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"\\xff is no UTF-8 text" in done.stderr


def test_key_material_that_does_not_belong_to_the_key_is_refused(suite: Suite, tmp_path: Path) -> None:
    from tests.suite.keypairs import key_pair

    private, public = key_pair(tmp_path)
    suite.good("keys", "import", "elsewhere", public)
    other, _ = key_pair(tmp_path)
    refused = suite("keys", "upload-material", "elsewhere", other)
    assert (refused.code, refused.errors.count("\n")) == (3, 1)
    assert suite.good("keys", "upload-material", "elsewhere", private, "-o", "json").data["has_material"]
