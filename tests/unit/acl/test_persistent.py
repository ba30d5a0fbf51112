from __future__ import annotations

import pytest

from acl.persistent import MAX_SHARD_ITEMS_PER_SHARD, PersistentMap


def test_map_changed_copy_leaves_the_original_as_it_was() -> None:
    empty: PersistentMap[str, int] = PersistentMap()
    one = empty.with_item("a", 1)
    two = one.with_item("a", 2)
    none = two.without("a")
    assert (empty.get("a"), one.get("a"), two.get("a"), none.get("a")) == (None, 1, 2, None)
    assert [len(each) for each in (empty, one, two, none)] == [0, 1, 1, 0]
    assert empty.get("a", 7) == 7


def test_map_equals_a_dict_after_many_changes() -> None:
    growing: PersistentMap[int, str] = PersistentMap()
    model: dict[int, str] = {}
    for number in range(3000):
        growing = growing.with_item(number * 7919, str(number))
        model[number * 7919] = str(number)
    for number in range(0, 3000, 3):
        growing = growing.without(number * 7919)
        del model[number * 7919]
    assert dict(growing.items()) == model
    assert sorted(growing.values()) == sorted(model.values())
    assert len(growing) == len(model)
    assert 7919 in growing
    assert 0 not in growing


def test_map_without_a_missing_key_raises() -> None:
    with pytest.raises(KeyError):
        PersistentMap[str, int]().without("a")


def test_map_shards_grow_as_the_square_root() -> None:
    growing: PersistentMap[int, int] = PersistentMap()
    for number in range(5000):
        growing = growing.with_item(number, number)
        shards = len(growing._shards)
        assert len(growing) <= MAX_SHARD_ITEMS_PER_SHARD * shards**2
        assert shards <= max(1, 2 * len(growing) ** 0.5 + 4)
