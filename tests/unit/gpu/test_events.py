from __future__ import annotations

from gpu.events import EventKind, KernelEvent


def test_event_without_another_attempt_has_no_retry() -> None:
    event = KernelEvent(kind=EventKind.NOT_READY, kernel="zscore", reason="it does not compile")
    assert (event.retry_s, event.printed) == (None, "")
