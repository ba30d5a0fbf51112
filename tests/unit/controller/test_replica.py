"""The replica tells about changes of policy, and about nothing else."""

from __future__ import annotations

from controller.commands import AddRule, RuleDraft, Verdict, encode_command
from controller.replica import Replica
from controller.state import PolicyChange, State

ADD = encode_command(
    AddRule(
        request_id="q-1",
        at=1.0,
        by="admin",
        rule=RuleDraft(principal="a", resource="topic.x", operations="read"),
        new_id="r-1",
    )
)


def test_replica_reports_changes_once() -> None:
    state = State()
    replica, seen, also = Replica(state), list[PolicyChange](), list[PolicyChange]()
    replica.on_change(seen.append)
    replica.on_change(also.append)
    assert replica.apply(ADD).verdict is Verdict.APPLIED
    assert replica.apply(ADD).repeated
    assert replica.apply(b"garbage").verdict is Verdict.INVALID
    assert seen == also == [PolicyChange(1, (("a", "topic.x"),))]


def test_replica_restores_without_reporting() -> None:
    first = Replica(State())
    first.apply(ADD)
    state = State()
    second, seen = Replica(state), list[PolicyChange]()
    second.on_change(seen.append)
    second.restore(first.dump())
    assert seen == []
    assert state.epoch == 1
