"""L3, the negative filter: what nobody was ever granted is denied without asking.

Rules of this file:
- Only what *allow* rules say goes in; deny rules, priorities and conditions play no part.
- "No" is certain for the policy epoch the filter was filled at; "maybe" means: ask.
- Stale bits of deleted rules cause questions, never a wrong answer; the next reset clears them.

Theory of operation: a grant (principal pattern, resource pattern) is kept under the key (principal
pattern, number of the resource pattern's shape, the pattern's projection on that shape); see
acl/shapes.py. A request is projected on every shape that is in use under any principal pattern that
matches its principal, and each projection is looked up. Proof of soundness: if a grant matches, its
principal pattern is among those, its shape (or the coarser one it was filed under) is in use there and
admits the path, and the projections are equal (the invariant of acl/shapes.py), so the very key that
was added is looked up, and a Bloom filter forgets no key. Hence all-missing means no grant matches.

A principal pattern that uses too many shapes is coarsened, and a request that would need more than
MAX_PROBES lookups is answered "maybe"; so a request of something never granted passes with at most
MAX_PROBES times ERROR_RATE_PER_PROBE, 1 %, however rules are written.

pybloom_live gives geometry and storage; its public hash is replaced (docs/adr/0005-negative-filter.md).
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, cast

import numpy as np
from pybloom_live import BloomFilter  # type: ignore[import-untyped] # Protocol _Sized below

from acl.index import PrincipalTable
from acl.patterns import parse_pattern, parse_principal_pattern
from acl.shapes import LITERAL, Key, Shape, coarsen, projector, shape_of
from cache.keyed import process_hasher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from acl.model import Principal, Resource
    from cache.keyed import Hasher

MAX_PROBES: Final = 16  # of one request; the report measured a mean of 8 and a maximum of 12
ERROR_RATE_PER_REQUEST: Final = 0.01  # features C3
ERROR_RATE_PER_PROBE: Final = ERROR_RATE_PER_REQUEST / MAX_PROBES
MAX_SHAPES_PER_PRINCIPAL: Final = 8  # further ones are coarsened, to kind and first level at most
MAX_COARSE_LITERALS: Final = 2  # so there are at most 3 coarse shapes
# 32 KB of bits. In smaller filters the two halves of a hash step through so few places that whole
# sequences coincide: at 1,024 keys that more than doubled the error rate, here it adds a twentieth.
MIN_CAPACITY: Final = 16_384
_GROWTH: Final = 2

_LOW_32_BITS: Final = 0xFFFF_FFFF
_LOW_64_BITS: Final = 0xFFFF_FFFF_FFFF_FFFF
_EXACT: Final = -1  # the number of all literal shapes together: their keys are whole paths


class _Bits(Protocol):
    """The part of `bitarray` that is used."""

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: bool, /) -> None: ...
    def clear(self) -> None: ...
    def frombytes(self, data: bytes, /) -> None: ...


class _Sized(Protocol):
    """The part of `pybloom_live.BloomFilter` that is used: how many bits for so many keys, and the bits."""

    bitarray: _Bits
    bits_per_slice: int
    num_slices: int
    num_bits: int


class KeyedBloom:
    """A Bloom filter of 64-bit hashes, remembered so that it can be built again in another size."""

    __slots__ = ("_bits", "_hashes", "_offsets", "_slice_bits", "capacity", "size_bytes")

    def __init__(self, capacity: int, hashes: Iterable[int] = ()) -> None:
        sized = cast("_Sized", BloomFilter(capacity, ERROR_RATE_PER_PROBE))
        self.capacity = capacity
        self.size_bytes = (sized.num_bits + 7) // 8
        self._bits = sized.bitarray
        self._slice_bits = sized.bits_per_slice
        self._offsets = range(0, sized.num_bits, sized.bits_per_slice)
        self._hashes = array("Q", hashes)
        self._fill(sized.num_bits)

    def _fill(self, bit_count: int) -> None:
        """Set the bits of all remembered hashes at once; the same places as `add`."""
        hashes = np.frombuffer(self._hashes, dtype=np.uint64)
        places = np.zeros(bit_count, dtype=np.uint8)
        step = (hashes >> np.uint64(32)) | np.uint64(1)
        current = hashes & np.uint64(_LOW_32_BITS)
        for offset in self._offsets:
            places[(current % np.uint64(self._slice_bits)).astype(np.int64) + offset] = 1
            current += step
        self._bits.clear()
        self._bits.frombytes(np.packbits(places, bitorder="little").tobytes())

    def add(self, value: int) -> None:
        """Remember a hash of 64 bits, signed or not."""
        value &= _LOW_64_BITS
        self._hashes.append(value)
        current, step = value & _LOW_32_BITS, (value >> 32) | 1
        for offset in self._offsets:
            self._bits[offset + current % self._slice_bits] = True
            current += step

    def __contains__(self, value: int) -> bool:
        value &= _LOW_64_BITS
        current, step = value & _LOW_32_BITS, (value >> 32) | 1
        bits, slice_bits = self._bits, self._slice_bits
        for offset in self._offsets:
            if not bits[offset + current % slice_bits]:
                return False
            current += step
        return True

    def __len__(self) -> int:
        return len(self._hashes)

    @property
    def is_full(self) -> bool:
        """Whether one more hash would raise the error rate."""
        return len(self._hashes) >= self.capacity

    def resized(self) -> KeyedBloom:
        """Return a filter of the same hashes, each once, with room for as many again."""
        hashes = cast("list[int]", np.unique(np.frombuffer(self._hashes, dtype=np.uint64)).tolist())
        capacity = self.capacity
        while capacity < _GROWTH * len(hashes):
            capacity *= _GROWTH
        return KeyedBloom(capacity, hashes)


@dataclass(slots=True)
class _Granted:
    """The shapes in use under one principal pattern.

    Attributes:
        name: the pattern's text.
        exact: whether any literal resource was granted.
        shapes: number and projection by shape.
    """

    name: str
    exact: bool = False
    shapes: dict[Shape, _Numbered] = field(default_factory=dict["Shape", "_Numbered"])

    def file(self, shape: Shape, key: Key) -> tuple[int, Key]:
        """Return the number and key under which a grant is kept; registers a new shape."""
        if not shape.tail and all(kind == LITERAL for kind in shape.kinds):
            self.exact = True
            return _EXACT, key
        shape, key = self._place(shape, key)
        number, _ = self.shapes.setdefault(shape, (len(self.shapes), projector(shape)))
        return number, key

    def _place(self, shape: Shape, key: Key) -> tuple[Shape, Key]:
        if shape in self.shapes or len(self.shapes) < MAX_SHAPES_PER_PRINCIPAL:
            return shape, key
        return coarsen(shape, key, most_literals=MAX_COARSE_LITERALS)

    def probes(self, length: int) -> list[_Probe]:
        found = [
            (self.name, number, project)
            for shape, (number, project) in self.shapes.items()
            if shape.admits(length)
        ]
        return [(self.name, _EXACT, _whole), *found] if self.exact else found


def _whole(path: Key, _owner: str) -> Key:
    return path


_Numbered = tuple[int, "Callable[[Key, str], Key]"]
_Probe = tuple[str, int, "Callable[[Key, str], Key]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterStats:
    """What a negative filter holds.

    Attributes:
        grants: keys in it, repeated ones counted until the next resize.
        capacity: keys that fit before it is built again, larger.
        size_bytes: memory of the bits.
        resizes: how often it was built again.
        saturated: whether there are more grants than allowed, so that all is "maybe".
        error_rate: of one request that nothing granted matches, at most, while not saturated.
    """

    grants: int
    capacity: int
    size_bytes: int
    resizes: int
    saturated: bool
    error_rate: float = ERROR_RATE_PER_REQUEST


class GrantFilter:
    """A keyed Bloom filter of what is granted somewhere; adding only, in one task.

    Args:
        grants: (principal pattern, resource pattern) texts of enabled allow rules.
        max_grants: beyond so many keys every question is answered "maybe".
        hasher: a keyed hash; the process's own by default.

    Raises:
        AclError: a text is not in the grammar.
    """

    __slots__ = (
        "_bloom",
        "_classes",
        "_hasher",
        "_max_grants",
        "_resizes",
        "_saturated",
    )

    def __init__(
        self,
        grants: Iterable[tuple[str, str]] = (),
        *,
        max_grants: int = 1_000_000,
        hasher: Hasher | None = None,
    ) -> None:
        self._hasher: Hasher = process_hasher() if hasher is None else hasher
        self._max_grants = max_grants
        self._classes: PrincipalTable[_Granted] = PrincipalTable()
        self._bloom = KeyedBloom(MIN_CAPACITY)
        self._resizes = 0
        self._saturated = False
        for principal, resource in grants:
            self.add(principal, resource)

    def add(self, principal: str, resource: str) -> None:
        """Add one grant; plans made before are out of date.

        Raises:
            AclError: a text is not in the grammar; nothing was added.
        """
        pattern, name = parse_pattern(resource), parse_principal_pattern(principal)
        if self._saturated:
            return
        granted = self._classes.get(name)
        if granted is None:
            granted = _Granted(name.text)
            self._classes = self._classes.with_value(name, granted)
        number, key = granted.file(*shape_of(pattern))
        value = self._hasher((name.text, number, key))
        if self._bloom.is_full and not self._make_room():
            return
        self._bloom.add(value)

    def _make_room(self) -> bool:
        self._bloom = self._bloom.resized()
        self._resizes += 1
        if len(self._bloom) >= self._max_grants:
            # not fail-open: "maybe" makes every question go to the authority
            self._saturated = True
            self._bloom, self._classes = KeyedBloom(MIN_CAPACITY), PrincipalTable()
        return not self._saturated

    def plan(self, principal: Principal) -> ProbePlan:
        """Return what to look up for one principal, until the next `add`."""
        name = principal.name
        return ProbePlan(name, None if self._saturated else self._classes.matching(name))

    def maybe(self, principal: Principal, resource: Resource) -> bool:
        """Return False only if no grant matches; True means: ask."""
        return self.maybe_planned(self.plan(principal), resource)

    def maybe_planned(self, plan: ProbePlan, resource: Resource) -> bool:
        """Return the same as `maybe`, for a plan made after the last `add`."""
        if resource.is_filter:
            return (
                True  # grants match topics, and a filter is many; only the authority weighs those
            )
        path = resource.path
        probes = plan.probes(len(path))
        if probes is None:
            return True
        bloom, hasher, owner = self._bloom, self._hasher, plan.owner
        for name, number, project in probes:
            if hasher((name, number, project(path, owner))) in bloom:
                return True
        return False

    @property
    def stats(self) -> FilterStats:
        """What it holds now."""
        return FilterStats(
            grants=len(self._bloom),
            capacity=self._bloom.capacity,
            size_bytes=self._bloom.size_bytes,
            resizes=self._resizes,
            saturated=self._saturated,
        )


class ProbePlan:
    """The principal patterns that match one name, resolved once, and their shapes by path length.

    Holds no part of the filter's memory, so that an idle principal's plan does not keep an old filter.
    """

    __slots__ = ("_by_length", "_granted", "owner")

    def __init__(self, owner: str, granted: list[_Granted] | None) -> None:
        self.owner = owner
        self._granted = granted
        self._by_length: dict[int, list[_Probe] | None] = {}  # at most 129 lengths of a path

    def probes(self, length: int) -> list[_Probe] | None:
        """Return the lookups for a path of so many segments, or None if they are too many."""
        if length not in self._by_length:
            self._by_length[length] = self._collect(length)
        return self._by_length[length]

    def _collect(self, length: int) -> list[_Probe] | None:
        if self._granted is None:
            return None
        probes = [probe for granted in self._granted for probe in granted.probes(length)]
        return probes if len(probes) <= MAX_PROBES else None
