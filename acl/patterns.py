"""Patterns of resources and of principals: the only matcher of names against rules.

The written grammar is docs/grammar.md; tests/vectors/acl/ holds its conformance table.

Rules of this file:
- A pattern matches the whole name or nothing; case matters; a star never crosses a segment.
- `**` stands for one or more segments and only alone at the end.
- A first topic level that begins with `$` is matched only by a segment that writes the `$` itself,
  as MQTT 4.7.2 has it for filters; so `topic.**` says nothing about `$SYS/...`.
- `{principal}` is the asker's name, taken literally. Without an asker such a pattern matches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from acl import filters
from acl.errors import NameInvalid, PatternInvalid
from acl.globs import ANY, SegmentPattern, parse_segment
from acl.model import (
    MAX_PRINCIPAL_BYTES,
    MAX_RESOURCE_BYTES,
    MAX_RESOURCE_SEGMENTS,
    ResourceKind,
    verify_principal_name,
)
from acl.segments import escape, split_raw

if TYPE_CHECKING:
    from collections.abc import Sequence

_TOPIC: Final = ResourceKind.TOPIC.value
_KINDS: Final = frozenset(kind.value for kind in ResourceKind)


_LITERAL, _PARTIAL, _ANY = range(3)


def rank_of(segment: SegmentPattern) -> int:
    """Return how little a segment says: 0 a literal, 1 a partial wildcard, 2 `*`."""
    if segment.is_literal:
        return _LITERAL
    return _ANY if segment.is_any else _PARTIAL


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed resource pattern.

    Attributes:
        text: as it was written.
        segments: patterns of single segments; the first is for the kind.
        tail: whether `**` follows them.
        has_owner: whether `{principal}` is in one of them.
    """

    text: str
    segments: tuple[SegmentPattern, ...]
    tail: bool
    has_owner: bool

    @property
    def specificity(self) -> tuple[int, ...]:
        """Smaller is more specific: more literals, then partial wildcards, then `*`, then no `**`, from the left.

        `{principal}` counts as the literal that it becomes.
        """
        ranks = [rank_of(segment) for segment in self.segments]
        counts = [-ranks.count(rank) for rank in (_LITERAL, _PARTIAL, _ANY)]
        return (*counts, int(self.tail), *ranks)

    def matches(self, path: Sequence[str], owner: str | None = None) -> bool:
        """Whether the whole path fits.

        Args:
            path: the kind's text, then the segments (`Resource.path`).
            owner: the name of who asks, for `{principal}`.
        """
        segments = self.segments
        count = len(segments)
        if len(path) <= count if self.tail else len(path) != count:
            return False
        if (
            len(path) > 1
            and path[1].startswith("$")
            and path[0] == _TOPIC
            and not self._writes_dollar
        ):
            return False
        if self.has_owner:
            if owner is None:
                return False
            segments = tuple(segment.bind(owner) for segment in segments)
        for segment, text in zip(segments, path, strict=False):
            parts = segment.parts
            # a literal is compared here, which saves the call for most segments
            if parts[0] != text if len(parts) == 1 else not segment.matches(text):
                return False
        return True

    def may_share(self, other: Pattern, owner: str | None) -> bool:
        """Whether some path may fit both for this asker, or for somebody; never false when one does."""
        mine, theirs = self._open(owner), other._open(owner)
        if not (self.tail or other.tail) and len(mine) != len(theirs):
            return False
        if (self.tail and not other.tail and len(theirs) <= len(mine)) or (
            other.tail and not self.tail and len(mine) <= len(theirs)
        ):
            return False
        return all(one.may_share(two) for one, two in zip(mine, theirs, strict=False))

    def covers(self, other: Pattern) -> bool:
        """Whether every path that fits the other fits this, for the same asker; may be false though it does."""
        mine, theirs = self.segments, other.segments
        if not self.tail:
            if other.tail or len(mine) != len(theirs):
                return False
        elif len(theirs) + other.tail <= len(mine):
            return False
        # Both must see a first level with `$` alike; only a pattern that writes it does.
        may_be_topic = not theirs or theirs[0].matches(_TOPIC)
        if may_be_topic and other._writes_dollar and not self._writes_dollar:
            return False
        return all(one.covers(two) for one, two in zip(mine, theirs, strict=False))

    def bound_text(self, owner: str) -> str:
        """The text of this pattern with the asker's name, escaped, in place of `{principal}`."""
        written = ["*".join(map(escape, segment.parts)) for segment in self._bound(owner)]
        return ".".join([*written, "**"] if self.tail else written)

    def _open(self, owner: str | None) -> tuple[SegmentPattern, ...]:
        """The segments for an asker; for somebody a template may be anything."""
        if owner is not None:
            return self._bound(owner)
        return tuple(ANY if segment.has_owner else segment for segment in self.segments)

    def _bound(self, owner: str) -> tuple[SegmentPattern, ...]:
        return tuple(segment.bind(owner) for segment in self.segments)

    @property
    def _writes_dollar(self) -> bool:
        """Whether the segment for the first topic level begins with `$`.

        Of the unbound pattern: a name that begins with `$` does not make `{principal}` a written `$`.
        """
        return len(self.segments) > 1 and self.segments[1].is_dollar

    def overlaps_filter(self, levels: Sequence[str], owner: str | None = None) -> bool:
        """Whether some topic name matches both this pattern and an MQTT topic filter.

        Args:
            levels: the filter cut at `/`; `+` and a last `#` are its wildcards.
            owner: the name of who asks, for `{principal}`.
        """
        return self._topic_levels(owner, levels, filters.overlap)

    def covers_filter(self, levels: Sequence[str], owner: str | None = None) -> bool:
        """Whether every topic name that matches the MQTT topic filter matches this pattern."""
        return self._topic_levels(owner, levels, filters.cover)

    def _topic_levels(
        self, owner: str | None, levels: Sequence[str], relation: filters.Relation
    ) -> bool:
        if self.has_owner and owner is None:
            return False
        if self.segments and not self.segments[0].matches(_TOPIC):
            return False
        bound = tuple(segment.bind(owner or "") for segment in self.segments[1:])
        return relation(bound, levels, tail=self.tail, dollar=self._writes_dollar)


def parse_pattern(text: str) -> Pattern:
    """Return the pattern that `text` writes.

    Raises:
        PatternInvalid: not in the grammar; the message says which part and what to write.
    """
    if len(text.encode(errors="surrogatepass")) > MAX_RESOURCE_BYTES:
        raise PatternInvalid(f"a pattern has at most {MAX_RESOURCE_BYTES} bytes")
    raw = split_raw(text)
    if len(raw) > MAX_RESOURCE_SEGMENTS + 1:
        raise PatternInvalid(
            f"a pattern has at most {MAX_RESOURCE_SEGMENTS} segments after its kind"
        )
    tail = raw[-1] == "**"
    segments = tuple(map(parse_segment, raw[:-1] if tail else raw))
    _verify_kind(text, segments, tail=tail)
    return Pattern(text, segments, tail, any(segment.has_owner for segment in segments))


def _verify_kind(text: str, segments: tuple[SegmentPattern, ...], *, tail: bool) -> None:
    if not segments:
        return  # `**` alone: every resource
    kind = segments[0]
    if kind != ANY and (not kind.is_literal or kind.parts[0] not in _KINDS):
        known = ", ".join(sorted(_KINDS))
        raise PatternInvalid(f"`{text}` must begin with one of {known}, with `*`, or be `**`")
    if len(segments) == 1 and not tail:
        raise PatternInvalid(
            f"`{text}` names a kind only: write `{text}.**` for everything below it"
        )


@dataclass(frozen=True, slots=True)
class PrincipalPattern:
    """A parsed principal pattern: one token, in which `*` stands for any characters, also none.

    Attributes:
        text: as it was written.
        segment: the token's pattern.
    """

    text: str
    segment: SegmentPattern

    @property
    def is_literal(self) -> bool:
        """Whether exactly one name matches."""
        return self.segment.is_literal

    def matches(self, name: str) -> bool:
        """Whether the whole name fits."""
        return self.segment.matches(name)


def parse_principal_pattern(text: str) -> PrincipalPattern:
    """Return the principal pattern that `text` writes.

    Raises:
        PatternInvalid: `**`, or a character that no principal's name can hold.
    """
    if "**" in text:
        raise PatternInvalid(
            f"`{text}`: a principal is one token, write `*` for any of its characters"
        )
    if len(text.encode(errors="surrogatepass")) > MAX_PRINCIPAL_BYTES:
        raise PatternInvalid(f"a principal pattern has at most {MAX_PRINCIPAL_BYTES} bytes")
    try:
        verify_principal_name(text.replace("*", "x"))
    except NameInvalid as error:
        raise PatternInvalid(f"principal pattern `{text}`: {error}") from None
    return PrincipalPattern(text, SegmentPattern(tuple(text.split("*"))))


def topic_pattern(topic_filter: str) -> str:
    """Return the text of the resource pattern for a topic written the MQTT way.

    `+` becomes `*` and a last `#` becomes `**`; so `telemetry/#` is `topic.telemetry.**`, which, unlike
    the filter, leaves out `telemetry` itself.

    Raises:
        PatternInvalid: empty, or `+` or `#` where MQTT 4.7.1 does not allow it.
    """
    if not topic_filter:
        raise PatternInvalid("a topic is at least one character")
    levels = topic_filter.split("/")
    written: list[str] = [_TOPIC]
    for position, level in enumerate(levels, start=1):
        if level == "+":
            written.append("*")
        elif level == "#" and position == len(levels):
            written.append("**")
        elif "+" in level or "#" in level:
            raise PatternInvalid(
                f"`{topic_filter}`: `+` is a whole level, `#` the whole last level"
            )
        else:
            written.append(escape(level))
    return parse_pattern(".".join(written)).text
