"""Finding the rules that match a request by looking them up, in immutable snapshots.

Theory of operation: rules lie first under their principal pattern (a *class*), then under the shape
of their resource pattern, then under its key (see acl/shapes.py). A request looks up its principal
once for each way in which principal patterns are fixed (at most 34, usually 2), then its path once
per shape of each class found. The rules found that way are candidates; each is asked itself.

INVARIANT: within a bucket entries stand in the order in which they take precedence, so the first
that matches is the bucket's answer, and the best answer of all buckets is the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from acl.persistent import PersistentMap
from acl.shapes import Key, Shape, coarsen, fix_of, fixed_text, projector, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from acl.conditions import Condition
    from acl.patterns import Pattern, PrincipalPattern

MAX_SHAPES_PER_CLASS: Final = 64  # more are coarsened: correct all the same
# Kind, tenant and two levels; coarse shapes differ in this number only, so there are at most 5 of them.
MAX_COARSE_LITERALS: Final = 4

# Where an entry stands among all that match: deny first, then the order of docs/grammar.md.
Order = tuple[int, int, tuple[int, ...], int, str]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A rule, ready to be asked.

    Attributes:
        rule_id: which rule.
        mask: bits of its operations, a plain int because flag arithmetic is slow.
        denies: whether its effect is deny.
        order: smaller takes precedence.
        pattern: of the resource.
        condition: when it applies; None: always.
        expires_at: second since the epoch from which on it does not apply any more.
        timed: whether it has a condition or an end.
    """

    rule_id: str
    mask: int
    denies: bool
    order: Order
    pattern: Pattern
    condition: Condition | None = None
    expires_at: float = inf
    timed: bool = False

    def applies(self, at: float | None) -> tuple[bool, float]:
        """Say whether it applies at a moment, as far as time is concerned.

        Args:
            at: seconds since the epoch; None: not known, and then a deny applies and an allow does not.

        Returns:
            whether it does, and the moment until which that holds.
        """
        if not self.timed:
            return True, inf
        if at is None:
            return self.denies, inf
        if at >= self.expires_at:
            return False, inf
        if self.condition is None:
            return True, self.expires_at
        found = self.condition.weigh(at)
        met = self.denies if found.met is None else found.met
        return met, min(found.until, self.expires_at)


class Found(NamedTuple):
    """The rules that apply at a moment, or the first of them, and until when they are these."""

    entries: tuple[Entry, ...]
    until: float


Bucket = tuple[Entry, ...]


def applying(entries: Iterable[Entry], at: float | None) -> Found:
    """Return those of some entries that apply at a moment."""
    found: list[Entry] = []
    until = inf
    for entry in entries:
        if entry.timed:
            applies, ends = entry.applies(at)
            until = min(until, ends)
            if not applies:
                continue
        found.append(entry)
    return Found(tuple(found), until)


class PrincipalTable(Generic[T]):
    """An immutable map from principal patterns to values, asked by name."""

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        self._kinds: tuple[
            tuple[int, PersistentMap[str, tuple[tuple[PrincipalPattern, T], ...]]], ...
        ]
        self._kinds = ()

    def matching(self, name: str) -> list[T]:
        """Return the values of all patterns that match `name`."""
        found: list[T] = []
        for kind, patterns in self._kinds:
            bucket = patterns.get(fixed_text(kind, name, ""))
            if bucket is not None:
                found += [value for pattern, value in bucket if pattern.matches(name)]
        return found

    def get(self, pattern: PrincipalPattern) -> T | None:
        """Return the value kept under exactly this pattern."""
        kind, text = fix_of(pattern.segment)
        for other, patterns in self._kinds:
            if other == kind:
                for candidate, value in patterns.get(text, ()):
                    if candidate == pattern:
                        return value
        return None

    def items(self) -> Iterator[tuple[PrincipalPattern, T]]:
        """Yield every pattern and its value, in no order."""
        for _, patterns in self._kinds:
            for bucket in patterns.values():
                yield from bucket

    def with_value(self, pattern: PrincipalPattern, value: T) -> PrincipalTable[T]:
        """Return a table that holds `value` under this pattern."""
        return self._changed(pattern, ((pattern, value),))

    def without(self, pattern: PrincipalPattern) -> PrincipalTable[T]:
        """Return a table that holds nothing under this pattern."""
        return self._changed(pattern, ())

    def _changed(
        self, pattern: PrincipalPattern, new: tuple[tuple[PrincipalPattern, T], ...]
    ) -> PrincipalTable[T]:
        kind, text = fix_of(pattern.segment)
        kinds = dict(self._kinds)
        empty: PersistentMap[str, tuple[tuple[PrincipalPattern, T], ...]] = PersistentMap()
        patterns = kinds.get(kind, empty)
        kept = tuple(item for item in patterns.get(text, ()) if item[0] != pattern) + new
        if kept:
            kinds[kind] = patterns.with_item(text, kept)
        elif text in patterns:
            kinds[kind] = patterns.without(text)
        changed: PrincipalTable[T] = PrincipalTable()
        changed._kinds = tuple((code, items) for code, items in kinds.items() if len(items))
        return changed


@dataclass(frozen=True, slots=True)
class _Table:
    """All entries of one class whose patterns have one shape."""

    shape: Shape
    project: Callable[[Key, str], Key]
    buckets: PersistentMap[Key, Bucket]


@dataclass(frozen=True, slots=True)
class _Class:
    """All entries with one principal pattern."""

    tables: tuple[_Table, ...] = ()

    def entries(self) -> Iterator[Entry]:
        for table in self.tables:
            for bucket in table.buckets.values():
                yield from bucket

    def with_entry(self, entry: Entry) -> _Class:
        shape, key = self._place(entry.pattern)
        for position, table in enumerate(self.tables):
            if table.shape == shape:
                bucket = (*table.buckets.get(key, ()), entry)
                ordered = tuple(sorted(bucket, key=_order_of))
                return self._replaced(position, table.buckets.with_item(key, ordered))
        buckets: PersistentMap[Key, Bucket] = PersistentMap()
        table = _Table(shape, projector(shape), buckets.with_item(key, (entry,)))
        return _Class((*self.tables, table))

    def _place(self, pattern: Pattern) -> tuple[Shape, Key]:
        """Return where a new entry goes: its own shape, or a coarser one when there are too many."""
        shape, key = shape_of(pattern)
        known = any(table.shape == shape for table in self.tables)
        if known or len(self.tables) < MAX_SHAPES_PER_CLASS:
            return shape, key
        return coarsen(shape, key, most_literals=MAX_COARSE_LITERALS)

    def without_entry(self, entry: Entry) -> _Class:
        own = shape_of(entry.pattern)
        places = dict([coarsen(*own, most_literals=MAX_COARSE_LITERALS), own])
        for position, table in enumerate(self.tables):
            key = places.get(table.shape)
            bucket = () if key is None else table.buckets.get(key, ())
            kept = tuple(other for other in bucket if other.rule_id != entry.rule_id)
            if key is not None and len(kept) < len(bucket):
                buckets = table.buckets.with_item(key, kept) if kept else table.buckets.without(key)
                return self._replaced(position, buckets)
        raise KeyError(entry.rule_id)

    def _replaced(self, position: int, buckets: PersistentMap[Key, Bucket]) -> _Class:
        table = (replace(self.tables[position], buckets=buckets),) if len(buckets) else ()
        return _Class((*self.tables[:position], *table, *self.tables[position + 1 :]))


def _order_of(entry: Entry) -> Order:
    return entry.order


@dataclass(frozen=True, slots=True)
class RuleIndex:
    """All enabled rules, found by who asks and what for."""

    classes: PrincipalTable[_Class]

    @classmethod
    def empty(cls) -> RuleIndex:
        """Return the index of no rule."""
        return cls(PrincipalTable())

    def with_entry(self, principal: PrincipalPattern, entry: Entry) -> RuleIndex:
        """Return an index that also finds `entry`."""
        found = self.classes.get(principal) or _Class()
        return RuleIndex(self.classes.with_value(principal, found.with_entry(entry)))

    def without_entry(self, principal: PrincipalPattern, entry: Entry) -> RuleIndex:
        """Return an index that no longer finds `entry`.

        Raises:
            KeyError: it was not there.
        """
        found = self.classes.get(principal)
        if found is None:
            raise KeyError(entry.rule_id)
        left = found.without_entry(entry)
        classes = self.classes
        return RuleIndex(
            classes.with_value(principal, left) if left.tables else classes.without(principal)
        )

    def best(
        self, name: str, path: Key, operation: int, at: float | None = None
    ) -> tuple[Entry | None, float]:
        """Return the entry that takes precedence among all that match and apply, or None.

        Args:
            name: of the principal.
            path: of the resource, kind first.
            operation: one bit.
            at: seconds since the epoch; None: not known.

        Returns:
            the entry, and the moment until which it is this one.
        """
        best: Entry | None = None
        until = inf
        length = len(path)
        for found in self.classes.matching(name):
            for table in found.tables:
                if not table.shape.admits(length):
                    continue
                for entry in table.buckets.get(table.project(path, name), ()):
                    if entry.mask & operation and entry.pattern.matches(path, name):
                        if entry.timed:
                            applies, ends = entry.applies(at)
                            until = min(until, ends)
                            if not applies:
                                continue
                        if best is None or entry.order < best.order:
                            best = entry
                        break
        return best, until

    def applicable(self, name: str, path: Key, operation: int, at: float | None = None) -> Found:
        """Return all entries that match and apply; arguments as for `best`."""
        length = len(path)
        return applying(
            (
                entry
                for found in self.classes.matching(name)
                for table in found.tables
                if table.shape.admits(length)
                for entry in table.buckets.get(table.project(path, name), ())
                if entry.mask & operation and entry.pattern.matches(path, name)
            ),
            at,
        )

    def by_principal(self) -> Iterator[tuple[PrincipalPattern, Iterator[Entry]]]:
        """Yield every principal pattern with its entries."""
        for principal, found in self.classes.items():
            yield principal, found.entries()

    def of_principal(self, name: str, operation: int) -> Iterator[Entry]:
        """Yield every entry for this principal and operation, whatever its resource."""
        for found in self.classes.matching(name):
            for entry in found.entries():
                if entry.mask & operation:
                    yield entry
