from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from gpu.arena import TEXT_BYTES
from gpu.errors import (
    CacheUnsafe,
    CompileFailed,
    CompilerMissing,
    DeviceUnavailable,
    ToolchainError,
    WorkerBroken,
)
from gpu.messages import (
    MAX_NANOSECONDS,
    ORDER_BYTES,
    REPORT_BYTES,
    FailureCode,
    Order,
    Report,
    ReportKind,
    read_report,
)

reports = st.builds(
    Report,
    kind=st.sampled_from(ReportKind),
    slot=st.integers(0, 2**32 - 1),
    code=st.integers(0, 2**32 - 1),
    text_bytes=st.integers(0, TEXT_BYTES),
    batch=st.integers(0, 2**64 - 1),
    nanoseconds=st.integers(0, MAX_NANOSECONDS),
)


@given(reports)
def test_report_arrives_as_it_was_sent(report: Report) -> None:
    assert read_report(report.encode()) == report
    assert len(report.encode()) == REPORT_BYTES


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_order_arrives_as_it_was_sent(slot: int, records: int, batch: int) -> None:
    order = Order(slot, records, batch)
    assert Order.decode(order.encode()) == order
    assert len(order.encode()) == ORDER_BYTES


@given(st.binary(max_size=64) | st.binary(min_size=REPORT_BYTES, max_size=REPORT_BYTES))
def test_garbage_is_a_report_in_range_or_a_broken_worker(data: bytes) -> None:
    try:
        report = read_report(data)
    except WorkerBroken:
        return
    assert report.kind in ReportKind
    assert report.text_bytes <= TEXT_BYTES
    assert report.nanoseconds <= MAX_NANOSECONDS


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (Report(kind=ReportKind.READY, text_bytes=TEXT_BYTES + 1), "a text of"),
        (Report(kind=ReportKind.DONE, nanoseconds=MAX_NANOSECONDS + 1), "a batch of"),
    ],
)
def test_number_out_of_range_is_a_broken_worker(report: Report, words: str) -> None:
    with pytest.raises(WorkerBroken, match=words):
        read_report(report.encode())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CompilerMissing(), FailureCode.COMPILER_MISSING),
        (CompileFailed(), FailureCode.COMPILE_FAILED),
        (CacheUnsafe(), FailureCode.CACHE_UNSAFE),
        (DeviceUnavailable(), FailureCode.DEVICE_UNAVAILABLE),
        (ToolchainError(), FailureCode.OTHER),
    ],
)
def test_every_failure_has_its_code(error: ToolchainError, code: FailureCode) -> None:
    assert FailureCode.of(error) is code
