"""Conditions of rules: when a rule applies, written in a small language (docs/grammar.md) and weighed at a moment.

    time in "Mon-Fri 08:00-18:00 Europe/Berlin" and not date in "2026-12-24..2026-12-26 Europe/Berlin"

Rules of this file:
- Three values: met, not met, unknown. Whoever weighs a rule takes an unknown allow for not applicable and an unknown deny
  for applicable, so what cannot be known never allows more.
- Parsing needs no time zone database, so that every member of a cluster accepts the same rules; a zone that is not known
  where it is weighed is unknown.
- Work and memory of a condition are bounded when it is parsed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

from acl.errors import ConditionInvalid
from acl.moments import DateRange, TimeWindow, parse_date_range, parse_time_window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAX_CONDITION_CHARACTERS: Final = 4_096
MAX_TESTS: Final = 64
MAX_DEPTH: Final = 32

_TOKEN: Final = re.compile(
    r'\s*(?:(?P<word>[A-Za-z_][A-Za-z0-9_.]*)|"(?P<text>[^"\\]*)"|(?P<sign>[()]))'
)


@dataclass(frozen=True, slots=True)
class Weighed:
    """What a condition says at a moment.

    Attributes:
        met: whether it is met; None: that is not known.
        until: the moment, in seconds since the epoch, until which it says the same; infinite if for ever.
    """

    met: bool | None
    until: float = inf


UNKNOWN: Final = Weighed(None)


class Condition(Protocol):
    """A parsed condition."""

    def weigh(self, at: float | None) -> Weighed:
        """Say whether it is met.

        Args:
            at: seconds since the epoch; None: not known.
        """
        ...


@dataclass(frozen=True, slots=True)
class InTime:
    """`time in` and `date in`."""

    span: TimeWindow | DateRange

    def weigh(self, at: float | None) -> Weighed:
        """Whether the moment lies within."""
        if at is None:
            return UNKNOWN
        found = self.span.look(at)
        return UNKNOWN if found is None else Weighed(*found)


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite; of what is not known that is not known either."""

    inner: Condition

    def weigh(self, at: float | None) -> Weighed:
        """Whether the inner one is not met."""
        found = self.inner.weigh(at)
        return found if found.met is None else Weighed(not found.met, found.until)


@dataclass(frozen=True, slots=True)
class Both:
    """All of several, or any: `decisive` is what one of them must say for the rest not to matter."""

    inner: tuple[Condition, ...]
    decisive: bool

    def weigh(self, at: float | None) -> Weighed:
        """Whether all are met (`and`), or one is (`or`)."""
        until, met = inf, not self.decisive
        unknown = False
        for condition in self.inner:
            found = condition.weigh(at)
            until = min(until, found.until)
            unknown = unknown or found.met is None
            met = self.decisive if found.met is self.decisive else met
        if met is not self.decisive and unknown:
            return Weighed(None, until)
        return Weighed(met, until)


def parse_condition(text: str) -> Condition:
    """Return the condition that `text` writes.

    Raises:
        ConditionInvalid: not in the grammar; the message says where and what to write.
    """
    if len(text) > MAX_CONDITION_CHARACTERS:
        raise ConditionInvalid(f"a condition has at most {MAX_CONDITION_CHARACTERS} characters")
    parser = _Parser(_tokens(text))
    found = parser.disjunction(0)
    parser.verify_end()
    return found


def zones_of(text: str) -> tuple[str, ...]:
    """Return the time zones that a condition names; none of an empty text.

    Raises:
        ConditionInvalid: as for `parse_condition`.
    """
    found: list[str] = []
    waiting = [parse_condition(text)] if text else []
    while waiting:
        condition = waiting.pop()
        if isinstance(condition, InTime):
            found.append(condition.span.zone)
        elif isinstance(condition, Not):
            waiting.append(condition.inner)
        elif isinstance(condition, Both):
            waiting += condition.inner
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # word, text or sign
    value: str
    position: int


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    end = len(text.rstrip())
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None or found.lastgroup is None:
            raise ConditionInvalid(f"`{text[position : position + 20].strip()}` is not understood")
        tokens.append(_Token(found.lastgroup, found[found.lastgroup], position))
        position = found.end()
    return tokens


_SPANS: Final[Mapping[str, Callable[[str], TimeWindow | DateRange]]] = {
    "time": parse_time_window,
    "date": parse_date_range,
}


class _Parser:
    """Recursive descent; depth and size are bounded, so a text cannot exhaust the stack."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._tests = 0

    def disjunction(self, depth: int) -> Condition:
        return self._several("or", depth)

    def _several(self, word: str, depth: int) -> Condition:
        found = [self._part(word, depth)]
        while self._takes("word", word):
            found.append(self._part(word, depth))
        return found[0] if len(found) == 1 else Both(tuple(found), decisive=word == "or")

    def _part(self, word: str, depth: int) -> Condition:
        return self._several("and", depth) if word == "or" else self._negation(depth)

    def _negation(self, depth: int) -> Condition:
        if depth > MAX_DEPTH:
            raise ConditionInvalid(f"a condition is nested at most {MAX_DEPTH} deep")
        if self._takes("word", "not"):
            return Not(self._negation(depth + 1))
        if self._takes("sign", "("):
            found = self.disjunction(depth + 1)
            if not self._takes("sign", ")"):
                raise ConditionInvalid("a `(` is not closed")
            return found
        return self._test()

    def _test(self) -> Condition:
        self._tests += 1
        if self._tests > MAX_TESTS:
            raise ConditionInvalid(f"a condition has at most {MAX_TESTS} tests")
        subject = self._expected("word", "`time`, `date`, `not` or `(`")
        parse = _SPANS.get(subject)
        if parse is None:
            raise ConditionInvalid(f"`{subject}` is nothing to test: use `time` or `date`")
        if not self._takes("word", "in"):
            raise ConditionInvalid(f"`{subject}` needs `in` and a text behind it")
        return InTime(parse(self._expected("text", 'a text in quotes, such as "Mon-Fri"')))

    def _takes(self, kind: str, value: str) -> bool:
        token = self._token()
        if token is None or (token.kind, token.value) != (kind, value):
            return False
        self._next += 1
        return True

    def _expected(self, kind: str, what: str) -> str:
        token = self._token()
        if token is None or token.kind != kind:
            found = "the end" if token is None else f"`{token.value}`"
            raise ConditionInvalid(f"{what} is expected where {found} is")
        self._next += 1
        return token.value

    def _token(self) -> _Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def verify_end(self) -> None:
        token = self._token()
        if token is not None:
            raise ConditionInvalid(f"`{token.value}` is not expected: join tests by `and` or `or`")
