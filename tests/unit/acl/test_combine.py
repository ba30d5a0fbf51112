from __future__ import annotations

import pytest

from acl.combine import Combination
from acl.decide import Outcome, decide, decide_filter, explain
from acl.model import Principal
from acl.rules import AclRule, RuleSet
from tests.unit.acl.builders import a_request, a_rule

DENY, ALLOW, FIRST, ONE = Combination

WIDE = a_rule("wide", principal="*", resource="topic.**", operations="read,write")
NARROW_DENY = a_rule(
    "narrow", principal="*", resource="topic.secret.**", effect="deny", operations="read,write"
)
KEY = a_rule("key", principal="sensor", resource="topic.secret.key", operations="read,write")
HIGH_DENY = a_rule(
    "high", principal="*", resource="topic.**", effect="deny", priority=5, operations="read,write"
)
TWIN = a_rule("twin", principal="*", resource="topic.**", effect="deny", operations="read,write")
ONLY_DENY = a_rule("no", principal="*", resource="topic.x", effect="deny", operations="read,write")


@pytest.mark.parametrize(
    ("mode", "rules", "resource", "outcome", "rule_id", "why"),
    [
        (DENY, [WIDE, KEY, NARROW_DENY], "topic.secret.key", "deny", "narrow", "any deny denies"),
        (DENY, [WIDE], "topic.a", "allow", "wide", "no deny is there"),
        (
            ALLOW,
            [WIDE, KEY, NARROW_DENY],
            "topic.secret.key",
            "allow",
            "key",
            "the most specific allow",
        ),
        (ALLOW, [WIDE, NARROW_DENY], "topic.secret.a", "allow", "wide", "any allow allows"),
        (ALLOW, [ONLY_DENY], "topic.x", "deny", "no", "a deny is named where nothing allows"),
        (
            FIRST,
            [WIDE, KEY, NARROW_DENY],
            "topic.secret.key",
            "allow",
            "key",
            "it is more specific",
        ),
        (
            FIRST,
            [WIDE, KEY, NARROW_DENY],
            "topic.secret.a",
            "deny",
            "narrow",
            "more specific than wide",
        ),
        (FIRST, [WIDE, KEY, HIGH_DENY], "topic.secret.key", "deny", "high", "priority comes first"),
        (
            FIRST,
            [WIDE, TWIN],
            "topic.a",
            "deny",
            "twin",
            "deny before allow where all else is equal",
        ),
        (ONE, [WIDE, NARROW_DENY], "topic.a", "allow", "wide", "it is the only one here"),
        (ONE, [ONLY_DENY], "topic.x", "deny", "no", "the only one denies"),
        (ONE, [WIDE, KEY], "topic.secret.key", "deny", None, "two allows are two rules"),
        (ONE, [WIDE, NARROW_DENY], "topic.secret.a", "deny", None, "two rules apply"),
        *[(mode, [], "topic.a", "deny", None, "denied by default") for mode in Combination],
    ],
)
def test_mode_says_which_of_several_rules_decides(
    *,
    mode: Combination,
    rules: list[AclRule],
    resource: str,
    outcome: str,
    rule_id: str | None,
    why: str,
) -> None:
    for some in (rules, rules[::-1]):
        decision = decide(RuleSet(some, mode=mode), a_request("sensor", "read", resource))
        assert (decision.outcome.value, decision.rule_id) == (outcome, rule_id), why


@pytest.mark.parametrize(
    ("mode", "rules", "filter_", "outcome", "rule_id", "why"),
    [
        (DENY, [WIDE, HIGH_DENY], "a/#", "deny", "high", "all of it is denied"),
        (DENY, [WIDE, NARROW_DENY], "#", "allow", "wide", "some of it is not"),
        (ALLOW, [WIDE, HIGH_DENY], "a/#", "allow", "wide", "an allow is there"),
        (ALLOW, [HIGH_DENY], "a/#", "deny", "high", "nothing allows"),
        (FIRST, [WIDE, HIGH_DENY], "a/#", "deny", "high", "it comes first everywhere"),
        (FIRST, [KEY, TWIN], "secret/#", "allow", "key", "more specific, where it applies"),
        (ONE, [WIDE, NARROW_DENY], "#", "allow", "wide", "outside of secret it is alone"),
        (ONE, [WIDE, NARROW_DENY], "secret/a/+", "deny", None, "both apply to all of it"),
        (ONE, [KEY, WIDE], "secret/+", "allow", "wide", "alone on all topics but one"),
        (ONE, [KEY, TWIN], "secret/+", "deny", None, "twin applies wherever key does"),
        (ONE, [HIGH_DENY], "a/+", "deny", "high", "the only one denies"),
        *[(mode, [], "#", "deny", None, "denied by default") for mode in Combination],
    ],
)
def test_mode_says_whether_a_filter_may_hold_something_allowed(
    *,
    mode: Combination,
    rules: list[AclRule],
    filter_: str,
    outcome: str,
    rule_id: str | None,
    why: str,
) -> None:
    for some in (rules, rules[::-1]):
        decision = decide_filter(RuleSet(some, mode=mode), Principal("sensor"), filter_.split("/"))
        assert (decision.outcome.value, decision.rule_id) == (outcome, rule_id), why


def test_too_many_rules_are_an_error_that_names_some() -> None:
    rules = [a_rule(f"r{number}", priority=-number) for number in range(6)]
    decision = decide(RuleSet(rules, mode=ONE), a_request())
    assert decision.outcome is Outcome.DENY
    assert decision.reason == (
        "error: only one rule may apply, and 6 do: `r0`, `r1`, `r2`, `r3` and 2 more"
    )


@pytest.mark.parametrize("mode", Combination)
def test_disabled_rule_does_not_apply(mode: Combination) -> None:
    rules = [a_rule("on"), a_rule("off", effect="deny", enabled=False, priority=9)]
    assert decide(RuleSet(rules, mode=mode), a_request()).rule_id == "on"


@pytest.mark.parametrize(
    ("mode", "applicable"),
    [
        (DENY, ("narrow", "key", "wide")),
        (ALLOW, ("key", "wide", "narrow")),
        (FIRST, ("key", "narrow", "wide")),
        (ONE, ("key", "narrow", "wide")),
    ],
)
def test_explanation_names_all_rules_in_their_order(
    mode: Combination, applicable: tuple[str, ...]
) -> None:
    rules = RuleSet([WIDE, KEY, NARROW_DENY, ONLY_DENY], mode=mode)
    found = explain(rules, a_request("sensor", "read", "topic.secret.key"))
    assert found.applicable == applicable
    assert found.decision == decide(rules, a_request("sensor", "read", "topic.secret.key"))


def test_explanation_of_a_filter_names_what_relates_to_it() -> None:
    rules = RuleSet([WIDE, KEY, NARROW_DENY, ONLY_DENY])
    found = explain(rules, a_request("sensor", "read", "topic.secret.+"))
    assert found.applicable == ("narrow", "key", "wide")
    assert explain(rules, a_request("sensor", "write", "topic.+")).applicable == ()


def test_mode_stays_with_the_rules_through_their_changes() -> None:
    rules = RuleSet([WIDE], epoch=3, mode=FIRST)
    assert rules.with_rule(KEY).without_rule("wide").mode is FIRST
    changed = rules.with_mode(ALLOW)
    assert (changed.mode, changed.epoch, changed.rules) == (ALLOW, 4, rules.rules)
