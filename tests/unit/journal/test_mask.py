"""No secret leaves a masker, whatever the borders of its chunks; nothing else changes."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinline_journal import Masker

CASES = [
    ([b"secret"], b"a secret here", b"a ****** here"),
    ([b"secret"], b"secre", b"secre"),
    ([b"secret"], b"secresecret", b"secre******"),
    ([b"abc", b"bcd"], b"xabcdx abx bcx", b"x****x abx bcx"),
    ([b"abab"], b"ababab ab", b"****** ab"),
    ([b"aa"], b"aaa a", b"*** a"),
    ([b"pass", b"password"], b"pass password passwor", b"**** ******** ****wor"),
    ([b"b", b"abcd"], b"abc abcd", b"a*c ****"),
    ([b"two\nlines"], b"two\nlines\ntwo\nline", b"*********\ntwo\nline"),
    ([b"\xff\x00"], b"\xff\xff\x00\x00\xff", b"\xff**\x00\xff"),
    ([], b"anything", b"anything"),
    ([b""], b"anything", b"anything"),
]


def masked(secrets: list[bytes], chunks: list[bytes]) -> bytes:
    masker = Masker(secrets)
    out = bytearray()
    fed = 0
    for chunk in chunks:
        out += masker.feed(chunk)
        fed += len(chunk)
        assert len(out) + masker.held() == fed
    return bytes(out + masker.finish())


@pytest.mark.parametrize(("secrets", "data", "expected"), CASES)
def test_all_ways_to_split_in_three_give_the_same(secrets: list[bytes], data: bytes, expected: bytes) -> None:
    for first, second in combinations(range(len(data) + 1), 2):
        assert masked(secrets, [data[:first], data[first:second], data[second:]]) == expected


@pytest.mark.parametrize(("secrets", "data", "expected"), CASES)
def test_byte_by_byte_gives_the_same(secrets: list[bytes], data: bytes, expected: bytes) -> None:
    assert masked(secrets, [data[at : at + 1] for at in range(len(data))]) == expected


def naively_masked(secrets: list[bytes], data: bytes) -> bytes:
    """Every position that some occurrence of some secret covers."""
    hidden = {
        position
        for secret in filter(None, secrets)
        for at in range(len(data))
        if data.startswith(secret, at)
        for position in range(at, at + len(secret))
    }
    return bytes(ord("*") if position in hidden else byte for position, byte in enumerate(data))


WORDS = st.text("ab", max_size=40).map(str.encode)


@given(st.lists(WORDS, max_size=4), st.lists(WORDS, max_size=12))
def test_any_borders_of_chunks_give_what_the_whole_would(secrets: list[bytes], chunks: list[bytes]) -> None:
    assert masked(secrets, chunks) == naively_masked(secrets, b"".join(chunks))


@given(st.data())
def test_secrets_that_do_occur_are_masked_across_any_borders(data: st.DataObject) -> None:
    text = data.draw(st.text("abc", min_size=1, max_size=200).map(str.encode))
    places = st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(sorted)
    secrets = [text[start:end] for start, end in data.draw(st.lists(places, max_size=4))]
    borders = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text)), max_size=8))})
    chunks = [text[start:end] for start, end in pairwise(borders)]
    assert masked(secrets, chunks) == naively_masked(secrets, text)


def test_only_what_could_start_a_secret_is_held_back() -> None:
    masker = Masker([b"secret", b"cret-agent"])
    assert (masker.feed(b"plain sec"), masker.held()) == (b"plain ", 3)
    assert (masker.feed(b"ond"), masker.held()) == (b"second", 0)


def test_at_most_a_secret_less_one_byte_is_held_back() -> None:
    masker = Masker([b"x" * 100])
    masker.feed(b"x" * 99)
    assert masker.held() == 99
    assert masker.feed(b"x") == b"*"


def test_a_finished_stream_lets_go_and_keeps_what_was_masked() -> None:
    masker = Masker([b"abc", b"cde"])
    assert masker.feed(b"-abc") + masker.finish() == b"-***"
    assert masker.held() == 0
