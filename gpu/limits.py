"""The bounds of the kernel pool, each with its unit and its reason."""

from __future__ import annotations

from dataclasses import dataclass

from gpu.errors import GpuError

MIN_SLOTS = 2  # one fills while one runs


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """How much a kernel may hold and how long anybody waits.

    Args:
        slots: batches in shared memory for each kernel: one fills, two are at the worker.
        busy_wait_s: seconds a submit waits for room; longer than most deadlines, shorter than a client's patience.
        max_waiting_submits: submits that wait for room at the same time, for each kernel.
        start_s: seconds a worker may take to be ready, compiling included.
        restart_wait_s: seconds that callers wait for a worker before they are refused.
        min_pause_s: seconds before a failed worker is replaced the first time; doubles up to `max_pause_s`.
        max_pause_s: seconds between attempts at most, and between attempts that are unlikely to succeed.
    """

    slots: int = 3
    busy_wait_s: float = 2.0
    max_waiting_submits: int = 1024
    start_s: float = 180.0
    restart_wait_s: float = 5.0
    min_pause_s: float = 0.05
    max_pause_s: float = 30.0

    def __post_init__(self) -> None:
        if not MIN_SLOTS <= self.slots <= 64:  # noqa: PLR2004  64 slots of 64 MiB are 4 GiB: surely a mistake
            raise GpuError(f"`slots` must be {MIN_SLOTS}..64, not {self.slots}")
        if not 0 < self.min_pause_s <= self.max_pause_s:
            raise GpuError("`min_pause_s` must be above 0 and at most `max_pause_s`")
