"""Audit without a wired sink: events go to the log, none is dropped."""

from __future__ import annotations

import structlog.testing
import trio

from controller.audit import AuditTrail, LogTrail


async def test_log_trail_logs_every_event() -> None:
    trail: AuditTrail = LogTrail()
    with structlog.testing.capture_logs() as lines:
        trail.record(
            kind="acl.rule_added",
            principal="admin",
            action="create",
            resource="acl.rules",
            outcome="allow",
            reason="allowed by rule `a`",
            details={"rule": "r-1"},
        )
    assert [(line["event"], line["principal"], line["rule"]) for line in lines] == [
        ("acl.rule_added", "admin", "r-1")
    ]
    with trio.move_on_after(0):
        await trail.run()
    trail.close()
