"""The messages between the broker and a worker: fixed-size structures over a SEQPACKET socket pair.

Rules of this file: nothing a worker sends is believed. `read_report` raises `WorkerBroken` for anything but a
well-formed message; that it also fits what the broker waits for is checked in `gpu.lane`. Texts travel in the
arena's text area, and only their length is sent.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from gpu.arena import TEXT_BYTES
from gpu.errors import (
    CacheUnsafe,
    CompileFailed,
    CompilerMissing,
    DeviceUnavailable,
    ToolchainError,
    WorkerBroken,
)

_ORDER: Final = struct.Struct("<IIQ")  # slot, records, batch number
_REPORT: Final = struct.Struct("<IIIIQQ")  # kind, slot, code, text bytes, batch number, nanoseconds
ORDER_BYTES: Final = _ORDER.size
REPORT_BYTES: Final = _REPORT.size
MAX_NANOSECONDS: Final = 10**15  # eleven days: no launch lives past its deadline of a minute


class ReportKind(IntEnum):
    """What a worker says."""

    READY = 1
    FAILED = 2
    DONE = 3
    FAULT = 4


class FailureCode(IntEnum):
    """Why a worker could not get ready; decides whether to try again."""

    OTHER = 0
    COMPILER_MISSING = 1
    COMPILE_FAILED = 2
    CACHE_UNSAFE = 3
    DEVICE_UNAVAILABLE = 4

    @classmethod
    def of(cls, error: ToolchainError) -> FailureCode:
        """Return the code for an error."""
        match error:
            case CompilerMissing():
                return cls.COMPILER_MISSING
            case CompileFailed():
                return cls.COMPILE_FAILED
            case CacheUnsafe():
                return cls.CACHE_UNSAFE
            case DeviceUnavailable():
                return cls.DEVICE_UNAVAILABLE
            case _:
                return cls.OTHER


@dataclass(frozen=True, slots=True)
class Order:
    """Run `records` of `slot`."""

    slot: int
    records: int
    batch: int

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return _ORDER.pack(self.slot, self.records, self.batch)

    @classmethod
    def decode(cls, data: bytes) -> Order:
        """Return the order in `data`, which came from the broker and is right."""
        return cls(*_ORDER.unpack(data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a worker says; which fields count depends on the kind."""

    kind: ReportKind
    slot: int = 0
    code: int = 0
    text_bytes: int = 0
    batch: int = 0
    nanoseconds: int = 0

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return _REPORT.pack(
            self.kind, self.slot, self.code, self.text_bytes, self.batch, self.nanoseconds
        )


def read_report(data: bytes) -> Report:
    """Return the report in `data`, every field in range.

    Raises:
        WorkerBroken: it is no report.
    """
    if len(data) != REPORT_BYTES:
        raise WorkerBroken(f"a message of {len(data)} bytes instead of {REPORT_BYTES}")
    kind, slot, code, text_bytes, batch, nanoseconds = _REPORT.unpack(data)
    if kind not in ReportKind.__members__.values():
        raise WorkerBroken(f"a message of unknown kind {kind}")
    if text_bytes > TEXT_BYTES:
        raise WorkerBroken(f"a text of {text_bytes} bytes")
    if nanoseconds > MAX_NANOSECONDS:
        raise WorkerBroken(f"a batch of {nanoseconds} ns")
    return Report(
        kind=ReportKind(kind),
        slot=slot,
        code=code,
        text_bytes=text_bytes,
        batch=batch,
        nanoseconds=nanoseconds,
    )
