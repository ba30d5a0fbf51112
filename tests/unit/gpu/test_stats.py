from __future__ import annotations

from gpu.stats import KernelStats


def test_batches_add_up() -> None:
    stats = KernelStats()
    stats.add_batch(3, 0.5)
    stats.add_batch(5, 0.25)
    assert (stats.batches, stats.records, stats.batch_size_sum) == (2, 8, 8)
    assert stats.kernel_seconds == 0.75


def test_first_worker_is_no_restart() -> None:
    assert KernelStats(starts=0).restarts == 0
    assert KernelStats(starts=1).restarts == 0
    assert KernelStats(starts=3).restarts == 2
