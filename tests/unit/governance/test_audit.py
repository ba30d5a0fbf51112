from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing

from governance.audit import MAX_BACKLOG_BYTES, RETRY_S, AuditEvent, AuditLog, AuditOutcome
from governance.bursts import BURST_WINDOW_S


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def change(number: int = 1, *, pad: str = "") -> AuditEvent:
    return AuditEvent(
        kind="acl.rule_added",
        principal="admin",
        action="create",
        resource="acl.rules",
        outcome=AuditOutcome.ALLOW,
        rule_id=f"r-{number}",
        details={"pad": pad} if pad else {},
    )


def denial() -> AuditEvent:
    return AuditEvent(
        kind="authorization.denied",
        principal="viewer",
        action="write",
        resource="topic.telemetry.cpu",
        reason="no rule allows it",
        decision_id="d-0123456789ab",
        epoch=4,
        peer="127.0.0.1:5",
    )


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_denial_is_one_json_line_at_once(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, clock=Clock()) as log:
        log.record(denial())
        assert read(path) == [
            {
                "sequence": 1,
                "time": "2023-11-14T22:13:20.000000Z",
                "kind": "authorization.denied",
                "outcome": "deny",
                "count": 1,
                "principal": "viewer",
                "action": "write",
                "resource": "topic.telemetry.cpu",
                "reason": "no rule allows it",
                "decision_id": "d-0123456789ab",
                "epoch": 4,
                "peer": "127.0.0.1:5",
            }
        ]


def test_log_line_cannot_be_forged_by_a_topic(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, clock=Clock()) as log:
        log.record(AuditEvent(kind="k", resource='a"}\n{"kind":"forged'))
    assert [line["resource"] for line in read(path)] == ['a"}\n{"kind":"forged']


def test_burst_is_written_as_first_and_merged_rest(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "audit.jsonl"
    with AuditLog(path, clock=clock) as log:
        for _ in range(100):
            log.record(denial())
        clock.now += BURST_WINDOW_S
        log.tick()
        assert [line["count"] for line in read(path)] == [1, 99]
        assert log.stats.recorded == 100
        assert log.stats.written == 2


def test_close_writes_what_was_held_back(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, clock=Clock())
    log.record(denial())
    log.record(denial())
    log.close()
    log.close()
    assert [line["count"] for line in read(path)] == [1, 1]


def test_sequence_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for _ in range(3):
        with AuditLog(path, clock=Clock()) as log:
            log.record(change())
    assert [line["sequence"] for line in read(path)] == [1, 2, 3]


def test_unreadable_last_line_is_said_and_numbers_start_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"garbage\n")
    with structlog.testing.capture_logs() as logs, AuditLog(path, clock=Clock()) as log:
        log.record(change())
    assert [entry["event"] for entry in logs] == ["audit_sequence_unknown"]
    assert path.read_bytes().splitlines()[1].startswith(b'{"sequence":1,')


def test_files_are_bounded_in_size_and_number(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, clock=Clock(), max_bytes=4096, keep=2) as log:
        for n in range(200):
            log.record(change(n))
    files = sorted(tmp_path.iterdir())
    assert [f.name for f in files] == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert all(f.stat().st_size <= 4096 and f.stat().st_mode & 0o777 == 0o600 for f in files)
    assert read(path)[-1]["sequence"] == 200


def test_failing_file_never_raises_and_is_made_good_later(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "missing" / "audit.jsonl"
    with structlog.testing.capture_logs() as logs, AuditLog(path, clock=clock) as log:
        for n in range(5):
            log.record(change(n))
        assert log.stats.failures == 1  # no second attempt within the pause
        assert log.stats.lost == 0
        path.parent.mkdir()
        clock.now += RETRY_S
        log.tick()
        assert [line["sequence"] for line in read(path)] == [1, 2, 3, 4, 5]
        assert log.stats.written == 5
    assert [entry["event"] for entry in logs] == ["audit_write_failed"]
    assert "free the disk" in logs[0]["reason"]


def test_backlog_is_bounded_and_its_loss_counted(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "audit.jsonl"
    log = AuditLog(path, clock=Clock())
    events = MAX_BACKLOG_BYTES // 500 + 100
    with structlog.testing.capture_logs():
        for n in range(events):
            log.record(change(n, pad="p" * 500))
        assert 0 < log.stats.lost < events
        path.parent.mkdir()
        log.close()
    sequences = [line["sequence"] for line in read(path)]
    assert sequences == list(range(log.stats.lost + 1, events + 1))


def test_close_counts_what_could_not_be_written(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "missing" / "a", clock=Clock())
    with structlog.testing.capture_logs():
        log.record(change())
        log.close()
    assert log.stats.lost == 1
    assert log.stats.failures == 2


def test_log_without_a_file_keeps_the_last_in_memory() -> None:
    with AuditLog(None, clock=Clock()) as log:
        for n in range(2000):
            log.record(change(n))
        assert len(log.recent) == 1024
        assert log.recent[-1].sequence == 2000
        assert log.recent[-1].event.rule_id == "r-1999"


def test_denials_are_mirrored_for_the_operator_and_changes_are_not() -> None:
    with structlog.testing.capture_logs() as logs, AuditLog(None, clock=Clock()) as log:
        log.record(change())
        log.record(denial())
    assert [(e["event"], e["log_level"], e["principal"]) for e in logs] == [
        ("denied", "info", "viewer")
    ]


@pytest.mark.parametrize(("max_bytes", "keep"), [(10, 1), (4096, -1)])
def test_senseless_bounds_are_refused(max_bytes: int, keep: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_bytes must be"):
        AuditLog(tmp_path / "a", clock=Clock(), max_bytes=max_bytes, keep=keep)
    assert list(tmp_path.iterdir()) == []


async def test_run_gives_out_merged_denials_without_further_events(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    clock: Callable[[], float] = trio.current_time
    log = AuditLog(None, clock=clock)
    await nursery.start(log.run)
    with structlog.testing.capture_logs():
        log.record(denial())
        log.record(denial())
        await trio.sleep(2 * BURST_WINDOW_S + 0.1)
        assert len(log.recent) == 2
    log.close()
    nursery.cancel_scope.cancel()
