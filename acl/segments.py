r"""The text of a path: segments joined by dots, with what would be ambiguous escaped.

Rules of this file:
- A dot ends a segment; `\.` `\*` `\\` `\{` `\}` stand for the character itself; no other escape exists.
- Empty segments are kept, because MQTT levels may be empty (`a//b` has three levels).
- `join(split(text)) == text` for every text that `join` wrote, and `split(join(s)) == s` for every s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from acl.errors import NameInvalid, PatternInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable

SPECIAL: Final = frozenset(".*\\{}")


def escape(segment: str) -> str:
    """Return the text form of one segment.

    Args:
        segment: the characters of the segment, any but none of them special.
    """
    if SPECIAL.isdisjoint(segment):
        return segment
    return "".join(f"\\{character}" if character in SPECIAL else character for character in segment)


def join(segments: Iterable[str]) -> str:
    """Return the one text form of a path of literal segments."""
    return ".".join(map(escape, segments))


def split_raw(text: str) -> tuple[str, ...]:
    r"""Cut a text at its unescaped dots and keep every escape as it is written.

    Raises:
        PatternInvalid: a backslash stands before something it cannot escape, or at the end.
    """
    if "\\" not in text:
        return tuple(text.split("."))
    pieces: list[str] = []
    start = position = 0
    while position < len(text):
        character = text[position]
        if character == "\\":
            if text[position + 1 : position + 2] not in SPECIAL:
                raise PatternInvalid(
                    f"`{text}` has a backslash at character {position + 1} that escapes nothing:"
                    r" write `\\`, `\.`, `\*`, `\{` or `\}`"
                )
            position += 1
        elif character == ".":
            pieces.append(text[start:position])
            start = position + 1
        position += 1
    pieces.append(text[start:])
    return tuple(pieces)


def unescape_literal(raw: str) -> str:
    """Return the characters of one raw segment that must hold no wildcard and no template.

    Raises:
        NameInvalid: an unescaped `*`, `{` or `}`.
    """
    if SPECIAL.isdisjoint(raw):
        return raw
    characters: list[str] = []
    escaped = False
    for character in raw:
        if escaped or character not in SPECIAL:
            characters.append(character)
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            raise NameInvalid(f"`{raw}` holds `{character}` unescaped: write `\\{character}`")
    return "".join(characters)


def split(text: str) -> tuple[str, ...]:
    """Return the literal segments of a text.

    Raises:
        NameInvalid: a wildcard, a template, or an escape of nothing.
    """
    try:
        return tuple(map(unescape_literal, split_raw(text)))
    except PatternInvalid as error:
        raise NameInvalid(str(error)) from None
