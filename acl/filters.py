"""How a resource pattern and an MQTT topic filter relate: do they share a topic, does one contain the other?

Rules of this file:
- Both sides walk level by level; neither has a wildcard that could match in two ways, so there is no search.
- A filter's `#` stands for zero or more levels (MQTT 4.7.1.2: `a/#` matches `a`), a pattern's `**` for one or more.
- Neither matches a first level that begins with `$` unless it writes the `$` (MQTT 4.7.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acl.globs import SegmentPattern


class Relation(Protocol):
    """`overlap` or `cover`."""

    def __call__(
        self, segments: Sequence[SegmentPattern], levels: Sequence[str], *, tail: bool, dollar: bool
    ) -> bool:
        """Compare a pattern's segments with a filter's levels, see `overlap`."""
        ...


def overlap(
    segments: Sequence[SegmentPattern], levels: Sequence[str], *, tail: bool, dollar: bool
) -> bool:
    """Whether some topic name matches both.

    Args:
        segments: the pattern after its kind, without the closing `**`.
        levels: the filter, cut at `/`.
        tail: whether the pattern ends with `**`.
        dollar: whether the pattern's first segment writes a `$` first.
    """
    if not levels or _dollar_parts(levels[0], dollar=dollar):
        return False
    for position, level in enumerate(levels):
        if level == "#":
            return True  # zero further levels, or as many as the pattern still wants
        if position >= len(segments):
            return tail  # `**` takes this level and all that follow
        if level != "+" and not segments[position].matches(level):
            return False
    return len(levels) == len(segments) and not tail


def _dollar_parts(first_level: str, *, dollar: bool) -> bool:
    """Whether the `$` rule alone keeps the two apart."""
    if first_level in ("+", "#"):
        return dollar  # the pattern wants `$...`, which this wildcard never matches
    return first_level.startswith("$") and not dollar


def cover(
    segments: Sequence[SegmentPattern], levels: Sequence[str], *, tail: bool, dollar: bool
) -> bool:
    """Whether every topic name that the filter matches also matches the pattern.

    Args: as for `overlap`.
    """
    if not levels or _dollar_parts(levels[0], dollar=dollar):
        return False
    for position, level in enumerate(levels):
        if position >= len(segments):
            # `**` wants one level more, but `a/#` also matches `a`
            return tail and (level != "#" or position == 0)
        if level == "#":
            return False
        segment = segments[position]
        if not (segment.is_any if level == "+" else segment.matches(level)):
            return False
    return len(levels) == len(segments) and not tail
