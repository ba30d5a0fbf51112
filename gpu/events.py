"""What the pool tells its owner: events for operators, finished batches for metrics."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EventKind(StrEnum):
    """What happened to a kernel."""

    READY = "ready"
    NOT_READY = "not_ready"
    FAULT = "fault"
    CALLBACK_FAILED = "callback_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelEvent:
    """Something an operator may want to know.

    Args:
        kind: what happened.
        kernel: to which kernel.
        reason: one line, or a compiler's lines.
        printed: what the worker printed, cut; may hold what the kernel's author chose to print.
        retry_s: seconds until the next attempt; None: no attempt will be made, or none is needed.
    """

    kind: EventKind
    kernel: str
    reason: str
    printed: str = ""
    retry_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchDone:
    """A batch that succeeded.

    Args:
        kernel: the kernel's name.
        records: its size.
        kernel_seconds: seconds the device spent on it, transfers included.
        total_seconds: seconds from its first row to its results.
    """

    kernel: str
    records: int
    kernel_seconds: float
    total_seconds: float
