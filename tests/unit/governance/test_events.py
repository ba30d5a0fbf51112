from __future__ import annotations

from governance.events import MAX_DETAILS, MAX_FIELD_CHARS, AuditEvent, bounded


def test_bounded_cuts_every_text_of_a_peer() -> None:
    long = "x" * (MAX_FIELD_CHARS * 3)
    event = bounded(AuditEvent(kind=long, principal=long, resource=long, reason=long, peer=long))
    for text in (event.kind, event.principal, event.resource, event.reason, event.peer):
        assert len(text) == MAX_FIELD_CHARS
        assert text.endswith("…")


def test_bounded_limits_the_details() -> None:
    details = {f"{n:02d}" + "k" * 600: "v" * 600 for n in range(MAX_DETAILS + 10)}
    cut = bounded(AuditEvent(kind="k", details=details)).details
    assert len(cut) == MAX_DETAILS
    assert all(len(k) <= MAX_FIELD_CHARS and len(v) <= MAX_FIELD_CHARS for k, v in cut.items())


def test_bounded_makes_lone_surrogates_encodable() -> None:
    assert bounded(AuditEvent(kind="k", resource="a\udc80b")).resource == "a\\udc80b"


def test_bounded_leaves_an_ordinary_event_alone() -> None:
    event = AuditEvent(kind="authorization.denied", principal="viewer", resource="topic.ä", count=3)
    assert bounded(event) == event
