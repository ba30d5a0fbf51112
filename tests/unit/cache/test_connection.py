from __future__ import annotations

from acl.decide import Decision, Outcome
from cache.connection import ConnectionCache
from cache.decisions import DecisionStore
from cache.limits import CacheLimits
from cache.stats import CacheStats
from tests.unit.cache.fakes import READ, SENSOR, WRITE

ALLOW = Decision(Outcome.ALLOW, "r", "", 1)
DENY = Decision(Outcome.DENY, None, "", 1)


def a_connection(
    limits: CacheLimits | None = None,
) -> tuple[ConnectionCache, list[ConnectionCache], CacheStats]:
    limits = limits or CacheLimits()
    forgotten: list[ConnectionCache] = []
    stats = CacheStats()
    table = DecisionStore(limits).table(SENSOR)
    return ConnectionCache(table, limits, stats, forgotten.append), forgotten, stats


def test_connection_tables_are_plain_dicts_by_operation() -> None:
    connection, _, _ = a_connection()
    connection.put(WRITE, b"a", ALLOW)
    connection.put(READ, b"a", DENY)
    assert connection.writes == {b"a": ALLOW}
    assert connection.reads == {b"a": DENY}
    assert len(connection) == 2
    assert connection.principal == SENSOR


def test_connection_flush_empties_the_same_dicts() -> None:
    connection, _, _ = a_connection()
    writes, reads = connection.writes, connection.reads
    connection.put(WRITE, b"a", ALLOW)
    connection.put(READ, b"a", ALLOW)
    connection.flush()
    assert (writes, reads) == ({}, {})
    assert connection.writes is writes
    assert connection.reads is reads
    assert connection.generation == 1
    connection.put(WRITE, b"b", ALLOW)
    assert writes == {b"b": ALLOW}


def test_connection_tables_are_bounded_in_number_and_bytes() -> None:
    connection, _, _ = a_connection(CacheLimits(l1_entries=100, l1_bytes=10_000))
    for number in range(5000):
        connection.put(WRITE, b"%060d" % number, DENY)
        assert len(connection) <= 100
    connection.put(WRITE, b"x" * 5001, DENY)
    assert b"x" * 5001 not in connection.writes
    assert connection._writes.weight <= 10_000


def test_connection_finds_what_is_about_to_be_forgotten() -> None:
    connection, _, _ = a_connection(CacheLimits(l1_entries=4))
    for name in (b"a", b"b", b"c"):
        connection.put(WRITE, name, ALLOW)
    assert b"a" not in connection.writes
    assert connection.recall(READ, b"a") is None
    assert connection.recall(WRITE, b"a") is ALLOW
    assert b"a" in connection.writes
    connection.put(WRITE, b"d", ALLOW)
    connection.flush()
    assert connection.recall(WRITE, b"b") is None


def test_connection_closed_holds_nothing_for_good() -> None:
    connection, forgotten, _ = a_connection()
    writes = connection.writes
    connection.put(WRITE, b"a", ALLOW)
    connection.close()
    connection.put(WRITE, b"b", ALLOW)
    assert writes == {}
    assert len(connection) == 0
    assert forgotten == [connection]


def test_connection_counts_the_messages_answered_without_a_call() -> None:
    connection, _, stats = a_connection()
    connection.count_hits(100)
    connection.count_hits(7, allowed=False)
    assert (stats.l1_allow, stats.l1_deny) == (100, 7)
