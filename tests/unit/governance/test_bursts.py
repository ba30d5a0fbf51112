from __future__ import annotations

import msgspec
from hypothesis import given, strategies as st

from governance.bursts import (
    BURST_WINDOW_S,
    MAX_DISTINCT_DENIALS,
    MAX_OPEN_BURSTS,
    BurstMerger,
)
from governance.events import AuditEvent, AuditOutcome


def denial(resource: str = "topic.a", *, principal: str = "viewer", count: int = 1) -> AuditEvent:
    return AuditEvent(
        kind="authorization.denied",
        principal=principal,
        action="write",
        resource=resource,
        reason="no rule allows it",
        count=count,
    )


def test_first_denial_is_written_at_once() -> None:
    assert BurstMerger().add(denial(), 0.0) == [denial()]


def test_identical_denials_become_one_event_with_their_number() -> None:
    merger = BurstMerger()
    merger.add(denial(), 0.0)
    assert merger.add(denial(count=7), 0.2) == []
    assert merger.add(denial(), 0.4) == []
    assert merger.held == 8
    assert list(merger.due(BURST_WINDOW_S - 0.01)) == []
    assert list(merger.due(BURST_WINDOW_S)) == [denial(count=8)]
    assert merger.held == 0


def test_denial_after_the_window_is_written_at_once_again() -> None:
    merger = BurstMerger()
    merger.add(denial(), 0.0)
    assert merger.add(denial(), BURST_WINDOW_S) == [denial()]


def test_different_denials_are_not_merged() -> None:
    merger = BurstMerger()
    other_reason = msgspec.structs.replace(denial(), reason="explicit deny")
    events = [denial(), denial("topic.b"), denial(principal="sensor"), other_reason]
    assert [merger.add(event, 0.0) for event in events] == [[event] for event in events]


def test_changes_are_never_merged() -> None:
    merger = BurstMerger()
    change = AuditEvent(kind="acl.rule_added", principal="admin", outcome=AuditOutcome.ALLOW)
    assert [merger.add(change, 0.0) for _ in range(3)] == [[change]] * 3


def test_topic_scan_is_merged_beyond_its_share() -> None:
    merger = BurstMerger()
    written = [e for n in range(1000) for e in merger.add(denial(f"topic.{n}"), 0.0)]
    assert len(written) == MAX_DISTINCT_DENIALS + 1
    assert written[-1].resource == ""
    merged = [e for e in merger.due(BURST_WINDOW_S) if e.count > 1]
    assert [(e.principal, e.resource, e.count) for e in merged] == [
        ("viewer", "", 1000 - MAX_DISTINCT_DENIALS - 1)
    ]


def test_clock_set_back_ends_every_window() -> None:
    merger = BurstMerger()
    merger.add(denial(), 100.0)
    merger.add(denial(), 100.0)
    assert list(merger.due(50.0)) == [denial()]


def test_open_bursts_are_bounded_and_none_is_lost() -> None:
    merger = BurstMerger()
    total = 0
    for n in range(MAX_OPEN_BURSTS + 50):
        for _ in range(2):
            total += sum(e.count for e in merger.add(denial(principal=f"p{n}"), 0.0))
    assert merger.held <= MAX_OPEN_BURSTS
    total += sum(e.count for e in merger.drain())
    assert total == 2 * (MAX_OPEN_BURSTS + 50)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.integers(min_value=0, max_value=200),
            st.integers(min_value=1, max_value=9),
            st.floats(min_value=0, max_value=0.7),
        ),
        max_size=200,
    )
)
def test_counts_add_up_to_what_happened(acts: list[tuple[str, int, int, float]]) -> None:
    merger, now, written = BurstMerger(), 0.0, 0
    for principal, topic, count, pause in acts:
        now += pause
        event = denial(f"topic.{topic}", principal=principal, count=count)
        written += sum(e.count for e in merger.add(event, now))
    written += sum(e.count for e in merger.drain())
    assert written == sum(count for _, _, count, _ in acts)
