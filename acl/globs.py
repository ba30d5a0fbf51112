"""One segment of a pattern: a literal, `*`, a partial wildcard such as `app-*`, or the owner's name.

Theory of operation: a raw segment is cut into literal *parts* at its stars. One part is a literal;
two or more match when the first is a prefix, the last a suffix, and the others follow each other
in between, each searched as early as possible. Leftmost search is exact for such patterns and is
linear in the text, so no pattern can be made slow by a name that a client chooses.
`{principal}` is kept as a marker inside the parts and replaced, literally, by the asker's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from acl.errors import PatternInvalid
from acl.segments import SPECIAL

if TYPE_CHECKING:
    from collections.abc import Iterator

TEMPLATE: Final = "{principal}"
# INVARIANT: no principal and no MQTT string holds U+0000 (MQTT 1.5.4-2), and patterns refuse it:
# it can mark the template inside a part without meeting a literal character.
OWNER: Final = "\0"


@dataclass(frozen=True, slots=True)
class SegmentPattern:
    """What one segment of a name may be.

    Attributes:
        parts: literal texts between the stars; one part means no star. OWNER marks the template.
    """

    parts: tuple[str, ...]

    @property
    def is_literal(self) -> bool:
        """No star: one text, perhaps with the owner's name in it."""
        return len(self.parts) == 1

    @property
    def is_any(self) -> bool:
        """Exactly `*`."""
        return self.parts == ("", "")

    @property
    def has_owner(self) -> bool:
        """Whether the segment depends on who asks."""
        return any(OWNER in part for part in self.parts)

    @property
    def is_dollar(self) -> bool:
        """Whether the pattern itself writes `$` first: the only way to match such a first topic level."""
        return self.parts[0].startswith("$")

    def bind(self, owner: str) -> SegmentPattern:
        """Return this segment with the asker's name in place of the template."""
        return SegmentPattern(tuple(part.replace(OWNER, owner) for part in self.parts))

    def may_share(self, other: SegmentPattern) -> bool:
        """Whether some text may fit both; never false when one does, and exact when either is a literal."""
        if self.is_literal:
            return other.matches(self.parts[0])
        if other.is_literal:
            return self.matches(other.parts[0])
        shorter, longer = sorted((self.parts[0], other.parts[0]), key=len)
        if not longer.startswith(shorter):
            return False
        shorter, longer = sorted((self.parts[-1], other.parts[-1]), key=len)
        return longer.endswith(shorter)

    def covers(self, other: SegmentPattern) -> bool:
        """Whether whatever fits the other fits this; may be false though it does."""
        if self.is_any or self.parts == other.parts:
            return True
        return other.is_literal and not other.has_owner and self.matches(other.parts[0])

    def matches(self, text: str) -> bool:
        """Whether the whole of `text` fits; a segment with an unbound template fits nothing."""
        parts = self.parts
        if len(parts) == 1:
            return text == parts[0]
        first, last = parts[0], parts[-1]
        if not text.startswith(first) or not text.endswith(last):
            return False
        position, end = len(first), len(text) - len(last)
        for part in parts[1:-1]:
            found = text.find(part, position, end)
            if found < 0:
                return False
            position = found + len(part)
        return position <= end


ANY: Final = SegmentPattern(("", ""))


def parse_segment(raw: str) -> SegmentPattern:
    r"""Return the pattern that a raw segment (escapes still in place) writes.

    Raises:
        PatternInvalid: two stars in a row, a brace that is not `{principal}`, or U+0000.
    """
    if OWNER in raw:
        raise PatternInvalid("a pattern holds the character U+0000, which no name can hold")
    if SPECIAL.isdisjoint(raw):
        return SegmentPattern((raw,))
    parts: list[str] = [""]
    before = ""
    for token in _tokens(raw):
        if token == "*" and before == "*":  # noqa: S105 - a wildcard, not a password
            raise PatternInvalid(f"`{raw}`: `**` may stand only alone as the last segment")
        before = token
        if token == "*":  # noqa: S105 - a wildcard, not a password
            parts.append("")
        elif token == TEMPLATE:
            parts[-1] += OWNER
        else:
            parts[-1] += token[-1]
    return SegmentPattern(tuple(parts))


def _tokens(raw: str) -> Iterator[str]:
    r"""Yield `*`, `{principal}`, single literal characters and escapes (`\.`)."""
    position = 0
    while position < len(raw):
        character = raw[position]
        if character == "\\":
            yield raw[position : position + 2]
            position += 2
        elif raw.startswith(TEMPLATE, position):
            yield TEMPLATE
            position += len(TEMPLATE)
        elif character in "{}":
            raise PatternInvalid(
                f"`{raw}` holds `{character}`: write `{TEMPLATE}`, or `\\{character}` for the character"
            )
        else:
            yield character
            position += 1
