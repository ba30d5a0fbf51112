from __future__ import annotations

from cache.generations import Generations


def a_table(entries: int = 8, weight: int = 1000) -> Generations[str, int]:
    return Generations(max_entries=entries, max_weight=weight)


def test_generations_never_hold_more_than_their_bounds() -> None:
    table = a_table(8, 100)
    for number in range(1000):
        table.put(f"k{number}", number, 1 + number % 30)
        assert len(table) <= 8
        assert table.weight <= 100


def test_generations_keep_what_is_asked_for_and_forget_the_rest() -> None:
    table = a_table(8)
    for number in range(100):
        table.put(f"k{number}", number, 1)
        if table.get("k0") is not None:
            table.put("k0", 0, 1)
    assert table.get("k0") == 0
    assert table.get("k1") is None
    assert table.get("k99") == 99


def test_generations_young_table_is_one_object_for_ever() -> None:
    table = a_table(4)
    young = table.young
    for number in range(10):
        table.put(f"k{number}", number, 1)
    table.clear()
    assert table.young is young
    assert young == {}
    table.put("a", 1, 1)
    assert young == {"a": 1}


def test_generations_do_not_keep_what_is_too_heavy_alone() -> None:
    table = a_table(8, 100)
    table.put("heavy", 1, 51)
    assert table.get("heavy") is None
    table.put("light", 1, 50)
    assert table.get("light") == 1


def test_generations_drop_one_entry_from_both() -> None:
    table = a_table(4)
    for key in "abc":
        table.put(key, 1, 1)
    assert "a" not in table.young
    assert table.get_old("a") == 1
    table.drop("a")
    table.drop("c")
    assert [table.get(key) for key in "abc"] == [None, 1, None]


def test_generations_sealed_keep_nothing() -> None:
    table = a_table()
    table.put("a", 1, 1)
    table.seal()
    table.put("b", 1, 1)
    assert len(table) == 0
    assert table.weight == 0


def test_generations_replace_without_counting_twice() -> None:
    table = a_table(8, 100)
    for number in range(50):
        table.put("a", number, 30)
    assert table.get("a") == 49
    assert table.weight == 30


def test_generations_clear_forgets_both() -> None:
    table = a_table(4)
    for key in "abc":
        table.put(key, 1, 1)
    table.clear()
    assert [table.get(key) for key in "abc"] == [None, None, None]
    assert len(table) == 0
    assert table.weight == 0
