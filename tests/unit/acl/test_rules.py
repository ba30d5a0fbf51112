from __future__ import annotations

import pytest

from acl.decide import decide
from acl.errors import AclError, PatternInvalid, RuleInvalid
from acl.model import Effect, Operation
from acl.rules import (
    MAX_RULE_DESCRIPTION_CHARACTERS,
    MAX_RULE_ID_CHARACTERS,
    MAX_RULE_NAME_CHARACTERS,
    MAX_RULE_PRIORITY,
    AclRule,
    RuleSet,
)
from tests.unit.acl.builders import a_request, a_rule


@pytest.mark.parametrize(
    "rule_id", ["", "a b", "-a", "é", "x" * (MAX_RULE_ID_CHARACTERS + 1), "a\n"]
)
def test_rule_id_is_a_plain_token(rule_id: str) -> None:
    with pytest.raises(RuleInvalid, match="rule id"):
        a_rule(rule_id)


def test_rule_with_bad_patterns_is_refused_with_the_reason() -> None:
    with pytest.raises(PatternInvalid, match="must begin with"):
        a_rule(resource="telemetry")
    with pytest.raises(PatternInvalid, match="principal pattern"):
        a_rule(principal="a b")


def test_rule_needs_an_operation_and_bounds() -> None:
    def rule(**changes: object) -> AclRule:
        fields: dict[str, object] = {
            "id": "r",
            "principal": "a",
            "resource": "topic.a",
            "operations": Operation.READ,
            "effect": Effect.ALLOW,
        }
        return AclRule(**(fields | changes))  # type: ignore[arg-type] # the point of the test

    for changes in (
        {"operations": Operation(0)},
        {"operations": 1 << 20},
        {"effect": "maybe"},
        {"priority": MAX_RULE_PRIORITY + 1},
        {"priority": -MAX_RULE_PRIORITY - 1},
        {"name": "x" * (MAX_RULE_NAME_CHARACTERS + 1)},
        {"description": "x" * (MAX_RULE_DESCRIPTION_CHARACTERS + 1)},
    ):
        with pytest.raises(AclError):
            rule(**changes)
    assert rule(priority=MAX_RULE_PRIORITY).enabled


def test_set_changes_only_in_copies_with_the_next_epoch() -> None:
    before = RuleSet([a_rule("a")], epoch=3)
    after = before.with_rule(a_rule("b", principal="viewer"))
    assert (before.epoch, after.epoch) == (3, 4)
    assert (len(before), len(after)) == (1, 2)
    assert after.with_rule(a_rule("c"), epoch=9).epoch == 9
    assert "b" not in before
    assert not decide(before, a_request("viewer")).allowed
    assert decide(after, a_request("viewer")).allowed
    gone = after.without_rule("b")
    assert gone.epoch == 5
    assert not decide(gone, a_request("viewer")).allowed
    assert decide(after, a_request("viewer")).allowed


def test_set_refuses_an_id_twice_and_an_unknown_one() -> None:
    rules = RuleSet([a_rule("a")])
    with pytest.raises(RuleInvalid, match="exists already"):
        rules.with_rule(a_rule("a", principal="viewer"))
    with pytest.raises(RuleInvalid, match="exists already"):
        RuleSet([a_rule("a"), a_rule("a")])
    with pytest.raises(RuleInvalid, match="there is no rule `b`"):
        rules.without_rule("b")
    with pytest.raises(RuleInvalid, match="never negative"):
        RuleSet([], epoch=-1)
    assert rules.rules == (a_rule("a"),)


def test_set_keeps_disabled_rules_without_using_them() -> None:
    rules = RuleSet([a_rule("a", enabled=False)])
    assert rules.get("a") is not None
    assert not decide(rules, a_request()).allowed
    assert rules.grants == ()
    assert len(rules.without_rule("a")) == 0


def test_set_lists_rules_by_id_and_grants_once() -> None:
    rules = RuleSet(
        [
            a_rule("c", resource="topic.x"),
            a_rule("b", resource="topic.x", operations="read"),
            a_rule("a", effect="deny"),
            a_rule("d", principal="viewer", resource="topic.a"),
        ]
    )
    assert [rule.id for rule in rules.rules] == ["a", "b", "c", "d"]
    assert rules.grants == (("sensor", "topic.x"), ("viewer", "topic.a"))
    assert rules.index is RuleSet.index.fget(rules)  # type: ignore[attr-defined] # a property
