"""Who can and what can, held against the decider: nothing is left out, and what has no exception is so."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from acl.combine import Combination
from acl.decide import decide
from acl.model import AccessRequest
from acl.patterns import parse_pattern, parse_principal_pattern
from acl.rules import AclRule, RuleSet
from acl.survey import what_can, who_can
from tests.property.acl_strategies import modes, requests, rule_lists

QUESTIONS = st.lists(requests(), min_size=1, max_size=8)


@settings(max_examples=300, deadline=None)
@given(rule_lists, QUESTIONS, modes)
def test_who_can_holds_whoever_is_allowed_and_who_has_no_exception_is(
    rule_list: list[AclRule], questions: list[AccessRequest], mode: Combination
) -> None:
    rules = RuleSet(rule_list, mode=mode)
    for request in questions:
        name = request.principal.name
        found = [
            grant
            for grant in who_can(rules, request.operation, request.resource)
            if parse_principal_pattern(grant.principal).matches(name)
        ]
        if decide(rules, request).allowed:
            assert found
        else:
            assert all(grant.unless for grant in found)


@settings(max_examples=300, deadline=None)
@given(rule_lists, QUESTIONS, modes)
def test_what_can_holds_whatever_is_allowed_and_what_has_no_exception_is(
    rule_list: list[AclRule], questions: list[AccessRequest], mode: Combination
) -> None:
    rules = RuleSet(rule_list, mode=mode)
    for request in questions:
        found = [
            grant
            for grant in what_can(rules, request.principal)
            if grant.operations & request.operation
            and parse_pattern(grant.resource).matches(request.resource.path)
        ]
        if decide(rules, request).allowed:
            assert found
        else:
            assert all(grant.unless for grant in found)
