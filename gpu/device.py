"""What a worker asks of a device; the CPU and CUDA keep the same promises behind it.

Rules of this file: a device belongs to one thread of one worker process and to one kernel; buffers are known
before the first batch, so nothing is allocated or freed while batches run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gpu.errors import FaultCode, GpuError


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotMemory:
    """Host memory of one slot, shared with the broker.

    Args:
        input_address: where `max_batch` input records begin.
        input_bytes: their bytes.
        output_address: where `max_batch` output records begin.
        output_bytes: their bytes.
    """

    input_address: int
    input_bytes: int
    output_address: int
    output_bytes: int


class DeviceFault(GpuError):  # noqa: N818 - named by whose fault it is (style 11)
    """A launch failed. The device is unusable afterwards (CUDA calls such errors sticky): the worker ends."""

    def __init__(self, code: FaultCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Device(Protocol):
    """One kernel, loaded on one device."""

    @property
    def description(self) -> str:
        """What operators read in logs: device name and kind."""
        ...

    @property
    def runs_host_code(self) -> bool:
        """Does the kernel run as code of this process, so that the process must be confined?"""
        ...

    def attach(self, slots: Sequence[SlotMemory]) -> None:
        """Take the slots' memory; once, before the first batch."""
        ...

    def begin(self, slot: int, records: int) -> None:
        """Start a batch of `records` (1..max_batch) in `slot`; may return before it has run."""
        ...

    def finish(self, slot: int) -> None:
        """Wait for the oldest batch begun, which is in `slot`; its results are then in the slot.

        Raises:
            DeviceFault: the launch failed.
        """
        ...
