"""What a kernel has done so far, as plain numbers for metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class KernelStats:
    """Counters since the broker started.

    Args:
        batches: launches that succeeded.
        records: records in them, so also the sum of all batch sizes.
        kernel_seconds: seconds the device spent on them, transfers included.
        faults: batches or idle workers that were lost.
        starts: workers that became ready; all but the first are restarts.
        busy: submits refused because the queue was full.
        queued: records without a result yet.
    """

    batches: int = 0
    records: int = 0
    kernel_seconds: float = 0.0
    faults: int = 0
    starts: int = 0
    busy: int = 0
    queued: int = 0

    @property
    def restarts(self) -> int:
        """Workers started in place of a lost one."""
        return max(0, self.starts - 1)

    @property
    def batch_size_sum(self) -> int:
        """The sum of all batch sizes: every record is in one batch."""
        return self.records

    def add_batch(self, records: int, seconds: float) -> None:
        """Count a batch that succeeded."""
        self.batches += 1
        self.records += records
        self.kernel_seconds += seconds
