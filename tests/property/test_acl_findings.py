"""What is called odd about rules is so: taking a shadowed or redundant rule away changes no answer."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from acl.combine import Combination
from acl.decide import decide, explain
from acl.findings import Kind, findings_of
from acl.model import AccessRequest
from acl.patterns import parse_pattern
from acl.rules import AclRule, RuleSet
from tests.property.acl_strategies import (
    modes,
    oracle_matches,
    requests,
    resource_patterns,
    rule_lists,
)

QUESTIONS = st.lists(requests(), min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(rule_lists, QUESTIONS, modes)
def test_rule_that_never_decides_can_go(
    rule_list: list[AclRule], questions: list[AccessRequest], mode: Combination
) -> None:
    rules = RuleSet(rule_list, mode=mode)
    for finding in findings_of(rules, now=0.0):
        if finding.kind not in {Kind.SHADOWED, Kind.REDUNDANT}:
            continue
        without = rules.without_rule(finding.rule_id)
        for request in questions:
            found = explain(rules, request)
            if mode is Combination.ONLY_ONE_APPLICABLE:
                applies = finding.rule_id in found.applicable
                assert not (applies and found.decision.allowed)
            else:
                assert decide(without, request).allowed is found.decision.allowed


@settings(max_examples=300, deadline=None)
@given(rule_lists, QUESTIONS)
def test_allow_rule_that_meets_a_deny_is_called_contradicted_or_shadowed(
    rule_list: list[AclRule], questions: list[AccessRequest]
) -> None:
    rules = RuleSet(rule_list)
    said = {
        finding.rule_id: finding
        for finding in findings_of(rules, now=0.0)
        if finding.kind in {Kind.SHADOWED, Kind.CONTRADICTED}
    }
    for request in questions:
        applicable = explain(rules, request).applicable
        denies = {rule.id for rule in rule_list if rule.effect == "deny"} & {*applicable}
        for rule_id in {*applicable} - denies:
            assert not denies or rule_id in said


@settings(max_examples=500, deadline=None)
@given(resource_patterns(), resource_patterns(), QUESTIONS)
def test_covering_pattern_matches_whatever_the_other_does(
    one: str, other: str, questions: list[AccessRequest]
) -> None:
    wider, narrower = parse_pattern(one), parse_pattern(other)
    for request in questions:
        path, name = request.resource.path, request.principal.name
        if wider.covers(narrower) and oracle_matches(other, path, name):
            assert oracle_matches(one, path, name)
        if oracle_matches(one, path, name) and oracle_matches(other, path, name):
            assert wider.may_share(narrower, name)
