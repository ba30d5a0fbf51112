from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.acl_explain import find, operation_of, told
from cli.failure import CommandFailed
from cli.main import app
from governance.audit import AuditLog
from governance.events import AuditEvent, AuditOutcome

ID = "d-0123456789ab"


def event(**fields: object) -> AuditEvent:
    known = {
        "kind": "authorization.denied",
        "principal": "viewer",
        "action": "publish",
        "resource": "topic.telemetry.cpu",
        "reason": "no rule allows it",
        "decision_id": ID,
        "epoch": 7,
        "peer": "10.0.0.1:5",
    }
    return AuditEvent(**{**known, **fields})  # type: ignore[arg-type]  # fields of every type


def written(path: Path, *events: AuditEvent) -> Path:
    with AuditLog(path, clock=lambda: 1_780_000_000.0) as log:
        for each in events:
            log.record(each)
    return path


def test_decision_is_found_and_told_with_all_that_is_known(tmp_path: Path) -> None:
    log = written(
        tmp_path / "broker.jsonl",
        event(decision_id="d-ba9876543210"),
        event(outcome=AuditOutcome.DENY, rule_id="no", count=3),
    )
    [found] = find(log, ID)
    assert told(found) == [
        f"{ID}: deny at 2026-05-28T20:26:40.000000Z",
        "  who:    viewer from 10.0.0.1:5",
        "  what:   publish topic.telemetry.cpu, 3 times",
        "  why:    no rule allows it",
        "  rule:   no (epoch 7)",
        f"  log:    {log}",
    ]


def test_rotated_files_are_read_and_what_is_no_event_is_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "broker.jsonl"
    written(tmp_path / "old.jsonl", event()).rename(tmp_path / "broker.jsonl.3")
    log.write_text(f'{{"decision_id": "{ID}"\nnot JSON {ID}\n')
    [found] = find(log, ID)
    assert found.file.name == "broker.jsonl.3"


def test_decision_about_an_administrator_is_found_by_its_details(tmp_path: Path) -> None:
    log = written(tmp_path / "c.jsonl", event(decision_id="", details={"decision_id": ID}))
    assert len(list(find(log, ID))) == 1


@pytest.mark.parametrize(
    ("action", "resource", "operation"),
    [
        ("publish", "topic.a", "write"),
        ("publish", "kernel.zscore", "execute"),
        ("subscribe", "topic.a.+", "read"),
        ("deliver", "topic.a", "read"),
        ("connect", "broker.b1", "connect"),
    ],
)
def test_event_is_about_an_operation_of_the_rules(
    action: str, resource: str, operation: str
) -> None:
    assert operation_of(event(action=action, resource=resource)) == operation


def test_decision_that_is_nowhere_says_where_it_was_looked_for(tmp_path: Path) -> None:
    log = written(tmp_path / "broker.jsonl", event())
    said = CliRunner().invoke(app, ["acl", "explain", "d-000000000000", "--audit", str(log)])
    assert isinstance(said.exception, CommandFailed)
    assert str(log) in str(said.exception)
    said = CliRunner().invoke(app, ["acl", "explain", ID, "--audit", str(log)])
    assert said.exit_code == 0
    assert "publish topic.telemetry.cpu" in said.stdout
    said = CliRunner().invoke(app, ["acl", "explain", ID])
    assert isinstance(said.exception, CommandFailed)
    assert "which audit log" in str(said.exception)
