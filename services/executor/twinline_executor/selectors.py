"""Selectors: which targets a run is for.

`name:web-*`, `tag:role=web`, `deployment:prod`, `generation:v4`, `state:operational`, joined by `and`, `or`, `not` and
parentheses; `not` binds strongest, then `and`. Values may hold `*` and `?`; case matters in values only, and not in
those of states and generations.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from typing import Protocol

from twinline_executor.errors import SelectorMalformed

NOUNS = ("name", "tag", "deployment", "generation", "state")
MAX_DEPTH = 64
MAX_LENGTH = 10_000
MOST_SHOWN = 10
"""Values that are named in place of one that nobody has."""

_TOKEN = re.compile(r"""\s*(?:(?P<paren>[()])|(?P<quoted>[A-Za-z]+:"[^"]*")|(?P<word>[^\s()"]+))""")


class Selectable(Protocol):
    """What of a target a selector looks at."""

    @property
    def name(self) -> str: ...
    @property
    def deployment(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def tags(self) -> Sequence[str]: ...


Predicate = Callable[[Selectable], bool]


@dataclass(frozen=True)
class _Token:
    text: str
    column: int  # from 1


@dataclass(frozen=True)
class _Term:
    noun: str
    value: str
    holds: Predicate


def parse(selector: str) -> Predicate:
    """Turn a selector into a question about one target. An empty one picks all; errors name the column, from 1."""
    return _parsed(selector)[0]


def instead(selector: str, targets: Sequence[Selectable]) -> str:
    """What the targets have in place of states, deployments and tags that the selector names and nobody has, or ""."""
    return "; ".join(
        f"{_lacked(term)}: {_there_are(term.noun, values)}"
        for term in _parsed(selector)[1]
        if (values := _values(term.noun, targets)) and not any(map(term.holds, targets))
    )


def _values(noun: str, targets: Iterable[Selectable]) -> set[str]:
    match noun:
        case "state" | "deployment":
            return {value for target in targets if (value := getattr(target, noun))}
        case "tag":
            return {tag for target in targets for tag in target.tags}
    return set()


def _lacked(term: _Term) -> str:
    return f"no target has the {term.noun} {term.value}" if term.value else f"every target has a {term.noun}"


def _there_are(noun: str, values: set[str]) -> str:
    if len(values) == 1:
        return f"the only {noun} is {next(iter(values))}"
    shown = sorted(values)[:MOST_SHOWN]
    rest = len(values) - len(shown)
    last = f"{rest} more" if rest else shown.pop()
    return f"the {noun}s are {', '.join(shown)} and {last}"


def _parsed(selector: str) -> tuple[Predicate, Sequence[_Term]]:
    if len(selector) > MAX_LENGTH:
        raise _malformed(f"it is longer than {MAX_LENGTH} characters", MAX_LENGTH + 1)
    tokens = _tokens(selector)
    if not tokens:
        return lambda target: True, ()
    parser = _Parser(tokens, end=len(selector) + 1)
    predicate = parser.disjunction()
    parser.expect_end()
    return predicate, parser.terms


def _tokens(selector: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    text = selector.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            start = position + len(text[position:]) - len(text[position:].lstrip())
            raise _malformed("a quote that does not follow noun: or does not end", start + 1)
        kind = match.lastgroup or "word"
        tokens.append(_Token(match.group(kind), match.start(kind) + 1))
        position = match.end()
    return tokens


def _malformed(what: str, column: int) -> SelectorMalformed:
    return SelectorMalformed(
        f"selector is malformed at column {column}: {what}; write name:web-* and tag:role=web, "
        f"with the nouns {', '.join(NOUNS)}",
        column=str(column),
    )


class _Parser:
    """Recursive descent; one method a level of binding."""

    def __init__(self, tokens: Sequence[_Token], *, end: int) -> None:
        self._tokens = tokens
        self._next = 0
        self._end = end
        self._depth = 0
        self.terms: list[_Term] = []

    def disjunction(self) -> Predicate:
        terms = [self._conjunction()]
        while self._take("or"):
            terms.append(self._conjunction())
        return terms[0] if len(terms) == 1 else lambda target: any(term(target) for term in terms)

    def expect_end(self) -> None:
        if self._next < len(self._tokens):
            token = self._tokens[self._next]
            raise _malformed(f"{token.text!r} where and, or or the end is expected", token.column)

    def _conjunction(self) -> Predicate:
        terms = [self._negation()]
        while self._take("and"):
            terms.append(self._negation())
        return terms[0] if len(terms) == 1 else lambda target: all(term(target) for term in terms)

    def _negation(self) -> Predicate:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _malformed("nested too deep", self._column())
        try:
            if self._take("not"):
                inner = self._negation()
                return lambda target: not inner(target)
            return self._atom()
        finally:
            self._depth -= 1

    def _atom(self) -> Predicate:
        if self._take("("):
            inner = self.disjunction()
            if not self._take(")"):
                raise _malformed("a parenthesis is not closed", self._column())
            return inner
        if self._next >= len(self._tokens):
            raise _malformed("it ends where a term is expected", self._end)
        token = self._tokens[self._next]
        self._next += 1
        self.terms.append(_term(token))
        return self.terms[-1].holds

    def _take(self, text: str) -> bool:
        if self._next < len(self._tokens) and self._tokens[self._next].text.lower() == text:
            self._next += 1
            return True
        return False

    def _column(self) -> int:
        return self._tokens[self._next].column if self._next < len(self._tokens) else self._end


def _term(token: _Token) -> _Term:
    noun, colon, value = token.text.partition(":")
    noun = noun.lower()
    if not colon or noun not in NOUNS:
        raise _malformed(f"{token.text!r} is not a term", token.column)
    value = value.strip('"')
    if not value and noun not in ("deployment", "state"):
        raise _malformed(f"{noun}: has no value", token.column)
    if noun == "generation" and value.lower() not in ("v4", "v5"):
        raise _malformed(f"generation {value!r} is neither v4 nor v5", token.column)
    return _Term(noun, value, _predicate(noun, value))


def _predicate(noun: str, value: str) -> Predicate:
    if noun == "generation":
        number = int(value[1])
        return lambda target: target.generation == number
    matches = re.compile(translate(value), re.IGNORECASE if noun == "state" else 0).match
    if noun == "tag":
        return lambda target: any(matches(tag) for tag in target.tags)
    return lambda target: matches(getattr(target, noun)) is not None
