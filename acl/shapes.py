"""Shapes: which positions of a pattern are fixed, so that rules can be found by looking up, not by trying.

Theory of operation: two patterns have the same shape when the same positions are fixed in the same
way: to a text, to a beginning or an ending of so many characters, to the asker's name, or not at all.
The *projection* of a path on a shape is what it holds at the fixed positions. All patterns of one
shape live in one table under their own projection; a request is projected once per shape and looked
up. The cost is the number of different shapes, whatever the number of rules (tuple space search).

INVARIANT (soundness): if a pattern matches a path asked for by `owner`, its shape admits the path's
length, and the path's projection on the shape equals the pattern's key. The converse does not hold
(a projection drops what is not fixed), so whoever finds a candidate asks the pattern itself. The
same holds for the coarser shape that `coarsen` returns. Both the rule index and the negative filter
of the cache stand on this.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from acl.globs import OWNER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from acl.globs import SegmentPattern
    from acl.patterns import Pattern

# What is fixed at a position: a small code. Beginnings are 1..MAX_FIX, endings MAX_FIX+1..2*MAX_FIX.
LITERAL: Final = 0
FREE: Final = -1
ASKER: Final = -2
MAX_FIX: Final = 16  # characters; longer ones add nothing that the verifying match does not do
# Lengths are rounded down to these, so that `app-1*`, `app-12*` and `app-123*` share two shapes, not three.
_FIX_LENGTHS: Final = (16, 8, 4, 2, 1)

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """What is fixed where.

    Attributes:
        kinds: one code for each position before the tail.
        tail: whether one or more segments of any text follow.
    """

    kinds: tuple[int, ...]
    tail: bool

    def admits(self, length: int) -> bool:
        """Whether a path of `length` segments can match a pattern of this shape."""
        return length > len(self.kinds) if self.tail else length == len(self.kinds)

    def project(self, path: Sequence[str], owner: str) -> Key:
        """Return what `path` holds at the fixed positions, for a request by `owner`."""
        return tuple(
            [
                fixed_text(kind, text, owner)
                for kind, text in zip(self.kinds, path, strict=False)
                if kind != FREE
            ]
        )


def projector(shape: Shape) -> Callable[[Key, str], Key]:
    """Return the fastest function that equals `shape.project` for every path that the shape admits."""
    kinds = shape.kinds
    fixed = [position for position, kind in enumerate(kinds) if kind != FREE]
    if any(kinds[position] != LITERAL for position in fixed):
        return shape.project
    if len(fixed) == len(kinds):
        if not shape.tail:
            return lambda path, _owner: path
        count = len(kinds)
        return lambda path, _owner: path[:count]
    if len(fixed) == 1:
        position = fixed[0]
        return lambda path, _owner: (path[position],)
    if not fixed:
        return lambda _path, _owner: ()
    pick = itemgetter(*fixed)
    return lambda path, _owner: pick(path)


def fixed_text(kind: int, text: str, owner: str) -> str:
    """Return what a segment holds where the position is fixed in the way `kind` says."""
    if kind == LITERAL:
        return text
    if kind == FREE:
        return ""
    if kind == ASKER:
        return OWNER if text == owner else ""
    if kind <= MAX_FIX:
        return text[:kind]
    return text[MAX_FIX - kind :]


def shape_of(pattern: Pattern) -> tuple[Shape, Key]:
    """Return the shape of a pattern and the key under which it is kept."""
    kinds: list[int] = []
    key: list[str] = []
    for segment in pattern.segments:
        kind, text = fix_of(segment)
        kinds.append(kind)
        if kind != FREE:
            key.append(text)
    return Shape(tuple(kinds), pattern.tail), tuple(key)


def fix_of(segment: SegmentPattern) -> tuple[int, str]:
    """Return what one segment fixes, and to which text."""
    parts = segment.parts
    if parts == (OWNER,):
        return ASKER, OWNER
    if len(parts) == 1 and OWNER not in parts[0]:
        return LITERAL, parts[0]
    beginning = parts[0].partition(OWNER)[0]
    if beginning:
        length = _round_down(len(beginning))
        return length, beginning[:length]
    ending = parts[-1].rpartition(OWNER)[2]
    if ending:
        length = _round_down(len(ending))
        return MAX_FIX + length, ending[-length:]
    return FREE, ""


def _round_down(length: int) -> int:
    return next(fix for fix in _FIX_LENGTHS if fix <= length)


def coarsen(shape: Shape, key: Key, *, most_literals: int) -> tuple[Shape, Key]:
    """Return a shape and key that admit more: leading literals, then anything.

    A shape without a tail keeps at least one position for the tail, which stands for one or more.

    Args:
        shape: of a pattern.
        key: of the same pattern.
        most_literals: how many leading literals are kept at most; 0 keeps none.
    """
    literals = 0
    while literals < min(len(shape.kinds), most_literals) and shape.kinds[literals] == LITERAL:
        literals += 1
    if not shape.tail and literals == len(shape.kinds):
        literals -= 1
    return Shape(shape.kinds[:literals], tail=True), key[:literals]
