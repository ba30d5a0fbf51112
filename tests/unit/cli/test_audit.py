"""The controller's events arrive in the audit log as they were."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import structlog
import trio

from cli.audit import ControllerAudit, log_as, open_audit
from governance.audit import AuditLog, AuditOutcome


def test_event_of_the_controller_is_recorded_with_every_field() -> None:
    log = AuditLog(None, clock=lambda: 1_800_000_000.0)
    ControllerAudit(log).record(
        kind="acl.rule_added",
        principal="admin",
        action="create",
        resource="acl.rules",
        outcome="allow",
        reason="asked for",
        details={"rule": "r1"},
    )
    event = log.recent[-1].event
    assert event.kind == "acl.rule_added"
    assert (event.principal, event.action, event.resource) == ("admin", "create", "acl.rules")
    assert event.outcome is AuditOutcome.ALLOW
    assert event.details == {"rule": "r1"}


def test_unknown_outcome_is_recorded_as_an_error_never_as_allowed() -> None:
    log = AuditLog(None, clock=lambda: 1_800_000_000.0)
    ControllerAudit(log).record(
        kind="x", principal="", action="", resource="", outcome="perhaps", reason="", details={}
    )
    assert log.recent[-1].event.outcome is AuditOutcome.ERROR


def test_event_is_on_file_when_the_log_is_closed(tmp_path: Path) -> None:
    audit = open_audit(tmp_path / "audit.jsonl")
    audit.record(
        kind="acl.rule_added",
        principal="admin",
        action="create",
        resource="acl.rules",
        outcome="allow",
        reason="",
        details={},
    )
    audit.close()
    assert "acl.rule_added" in (tmp_path / "audit.jsonl").read_text()


async def test_run_goes_on_until_it_is_cancelled() -> None:
    audit = ControllerAudit(AuditLog(None, clock=lambda: 1_800_000_000.0))
    with trio.move_on_after(0.01) as scope:
        await audit.run()
    assert scope.cancelled_caught


def test_log_lines_are_json_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    try:
        log_as(json=True)
        structlog.get_logger("stockade.test").info("listening", port=1)
    finally:
        structlog.configure(**before)
        logging.getLogger().handlers.clear()
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["event"] == "listening"
