from __future__ import annotations

from acl.decide import Decision, Outcome
from cache.stats import CacheStats, Level

ALLOW = Decision(Outcome.ALLOW, "r", "", 1)
DENY = Decision(Outcome.DENY, None, "", 1)


def test_stats_count_decisions_by_level_and_outcome() -> None:
    stats = CacheStats()
    stats.count_l1(ALLOW, 5)
    stats.count_l1(DENY)
    stats.count_l2(ALLOW)
    stats.count_l2(DENY)
    stats.count_authority(ALLOW)
    stats.count_authority(DENY)
    stats.l3_deny += 1
    stats.local_deny += 1
    assert stats.decisions() == {
        ("l1", "allow"): 5,
        ("l1", "deny"): 1,
        ("l2", "allow"): 1,
        ("l2", "deny"): 1,
        ("l3", "deny"): 1,
        ("authority", "allow"): 1,
        ("authority", "deny"): 1,
        ("local", "deny"): 1,
    }
    assert {level for level, _ in stats.decisions()} == {level.value for level in Level}


def test_stats_count_batches_and_remember_the_largest() -> None:
    stats = CacheStats()
    stats.count_batch(3)
    stats.count_batch(1)
    assert (stats.batches, stats.questions, stats.largest_batch) == (2, 4, 3)
