from __future__ import annotations

from acl.decide import Decision, Outcome
from acl.model import Principal, Resource
from cache.decisions import DecisionStore
from cache.limits import ENTRY_OVERHEAD_BYTES, L2_SHARDS, CacheLimits

SENSOR = Principal("sensor")
ALLOW = Decision(Outcome.ALLOW, "r", "", 1)


def no_clock() -> float:
    raise AssertionError("the clock was read for a decision that never ends")


def test_table_returns_what_was_kept_under_the_same_policy_only() -> None:
    store = DecisionStore(CacheLimits())
    table = store.table(SENSOR)
    store.put(table, (2, b"a"), ALLOW, serial=1)
    assert table.get((2, b"a"), 1, no_clock) is ALLOW
    assert table.get((4, b"a"), 1, no_clock) is None
    assert table.get((2, b"a"), 2, no_clock) is None
    assert table.get((2, b"a"), 1, no_clock) is None
    assert len(table) == 0


def test_table_forgets_a_decision_that_ended() -> None:
    now = 10.0
    store = DecisionStore(CacheLimits())
    table = store.table(SENSOR)
    ending = Decision(Outcome.ALLOW, "r", "", 1, valid_until=20.0)
    store.put(table, (2, Resource.topic("a")), ending, serial=1)
    question = (2, Resource.topic("a"))
    assert table.get(question, 1, lambda: now) is ending
    now = 20.0
    assert table.get(question, 1, lambda: now) is None
    now = 10.0
    assert table.get(question, 1, lambda: now) is None


def test_store_gives_a_principal_one_table() -> None:
    store = DecisionStore(CacheLimits())
    assert store.table(SENSOR) is store.table(Principal("sensor"))
    assert store.table(SENSOR) is not store.table(Principal("viewer"))


def test_store_never_holds_more_than_its_bounds() -> None:
    limits = CacheLimits(
        l2_principals_per_shard=4, l2_entries_per_principal=16, l2_bytes_per_shard=20_000
    )
    store = DecisionStore(limits)
    for number in range(2000):
        table = store.table(Principal(f"p{number % 700}"))
        for topic in range(20):
            store.put(table, (2, b"%d" % topic), ALLOW, serial=1 + number // 900)
    principals, entries, weight = store.sizes()
    assert principals <= 4 * L2_SHARDS
    assert entries <= 16 * principals
    assert weight <= 20_000 * L2_SHARDS
    assert store.evictions > 0
    for shard in store._shards:
        assert shard.budget.weight == sum(table.weight for table in shard.tables.values())


def test_store_client_that_asks_about_everything_pushes_out_only_itself() -> None:
    limits = CacheLimits(l2_bytes_per_shard=200 * ENTRY_OVERHEAD_BYTES, l2_entries_per_principal=64)
    store = DecisionStore(limits)
    shard_of = {n: hash(Principal(f"p{n}")) % L2_SHARDS for n in range(500)}
    first = shard_of[0]
    quiet, noisy = (Principal(f"p{n}") for n in [n for n in shard_of if shard_of[n] == first][:2])
    store.put(store.table(quiet), (2, b"mine"), ALLOW, serial=1)
    for number in range(5000):
        store.put(store.table(noisy), (2, b"%d" % number), ALLOW, serial=1)
    assert store.table(quiet).get((2, b"mine"), 1, no_clock) is ALLOW


def test_store_table_that_was_evicted_keeps_nothing_any_more() -> None:
    store = DecisionStore(CacheLimits(l2_principals_per_shard=1))
    tables = [store.table(Principal(f"p{n}")) for n in range(100)]
    evicted = next(table for table in tables if table.evicted)
    store.put(evicted, (2, b"a"), ALLOW, serial=1)
    assert evicted.get((2, b"a"), 1, no_clock) is None
    assert evicted.weight == 0


def test_table_entry_asked_for_again_stays() -> None:
    store = DecisionStore(CacheLimits(l2_entries_per_principal=8))
    table = store.table(SENSOR)
    for number in range(100):
        store.put(table, (2, b"%d" % number), ALLOW, serial=1)
        table.get((2, b"0"), 1, no_clock)
    assert table.get((2, b"0"), 1, no_clock) is ALLOW
    assert table.get((2, b"1"), 1, no_clock) is None
