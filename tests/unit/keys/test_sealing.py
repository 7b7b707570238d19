"""Envelopes, and the key they hang on."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinline_keys.errors import SealBroken
from twinline_keys.sealing import Sealer, load_kek
from twinline_kit import secret_files
from twinline_kit.secret_files import SecretFileUnusable

KEK = bytes(range(32))
SECRET = b"a secret that is long enough to be recognised"


@given(clear=st.binary(max_size=300), record=st.text(max_size=40))
def test_a_record_opens_to_what_was_sealed(clear: bytes, record: str) -> None:
    sealer = Sealer(KEK)
    assert sealer.open("credential", record, sealer.seal("credential", record, clear)) == clear


def test_a_sealed_record_shows_nothing_and_is_never_the_same_twice() -> None:
    sealer = Sealer(KEK)
    first, second = (sealer.seal("credential", "a", SECRET) for _ in range(2))
    assert SECRET not in first
    assert first[9:] != second[9:]


@pytest.mark.parametrize(("kind", "record"), [("credential", "b"), ("cloud-key", "a")])
def test_a_record_does_not_open_as_another(kind: str, record: str) -> None:
    sealed = Sealer(KEK).seal("credential", "a", SECRET)
    with pytest.raises(SealBroken, match=f"the sealed {kind} {record} does not open"):
        Sealer(KEK).open(kind, record, sealed)


@given(position=st.integers(0, 1_000), bit=st.integers(0, 7))
def test_a_single_changed_bit_is_noticed(position: int, bit: int) -> None:
    sealed = bytearray(Sealer(KEK).seal("credential", "a", SECRET))
    sealed[position % len(sealed)] ^= 1 << bit
    with pytest.raises(SealBroken):
        Sealer(KEK).open("credential", "a", bytes(sealed))


def test_another_key_opens_nothing_and_knows_it() -> None:
    sealed = Sealer(KEK).seal("credential", "a", SECRET)
    assert Sealer(KEK).sealed_here(sealed)
    assert not Sealer(bytes(32)).sealed_here(sealed)
    with pytest.raises(SealBroken):
        Sealer(bytes(32)).open("credential", "a", sealed)


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kek"
    old = os.umask(0)
    try:
        first = load_kek(path, may_make=True)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_kek(path, may_make=True) == first
    assert [entry.name for entry in path.parent.iterdir()] == ["kek"]


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o666])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "kek"
    load_kek(path, may_make=True)
    path.chmod(mode)
    with pytest.raises(SecretFileUnusable, match=f"has mode 0{mode:o}, open to others: run chmod 600"):
        load_kek(path, may_make=True)


@pytest.mark.parametrize("content", [b"c2hvcnQ=\n", b"\xff\xfe", b"", b"not base64 !\n"])
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "kek"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SecretFileUnusable, match="restore it from your backup"):
        load_kek(path, may_make=True)


def test_a_missing_key_is_not_replaced_when_records_hang_on_it(tmp_path: Path) -> None:
    with pytest.raises(SecretFileUnusable, match="cannot be read"):
        load_kek(tmp_path / "kek", may_make=False)
    assert not (tmp_path / "kek").exists()


def test_two_that_make_a_secret_at_once_end_with_one(tmp_path: Path) -> None:
    path = tmp_path / "token"

    def make_while_another_is_faster() -> str:
        secret_files.read_or_make(path, lambda: "first")
        return "second"

    assert secret_files.read_or_make(path, make_while_another_is_faster) == "first"
