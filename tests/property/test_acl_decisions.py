from __future__ import annotations

from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule as step

from acl.combine import Combination
from acl.decide import Outcome, decide, decide_filter, explain
from acl.index import RuleIndex
from acl.model import AccessRequest, Effect, Operation
from acl.rules import AclRule, RuleSet
from tests.property.acl_strategies import (
    modes,
    oracle_allows,
    oracle_applicable,
    requests,
    rule_lists,
    rules,
)


@settings(max_examples=200, deadline=None)
@given(rule_lists, st.lists(requests(), min_size=1, max_size=10), modes)
def test_indexed_decision_equals_trying_every_rule(
    rule_list: list[AclRule], questions: list[AccessRequest], mode: Combination
) -> None:
    rule_set = RuleSet(rule_list, epoch=1, mode=mode)
    for request in questions:
        found = explain(rule_set, request)
        decision = found.decision
        assert decision == decide(rule_set, request)
        assert decision.allowed is oracle_allows(rule_list, request, mode)
        applicable = oracle_applicable(rule_list, request)
        assert sorted(found.applicable) == sorted(rule.id for rule in applicable)
        several = mode is Combination.ONLY_ONE_APPLICABLE and len(applicable) > 1
        assert decision.reason.startswith("error") is several
        if not several:
            assert decision.rule_id == (found.applicable[0] if applicable else None)


@settings(deadline=None)
@given(rule_lists, requests())
def test_named_rule_is_the_first_in_the_order_of_the_grammar(
    rule_list: list[AclRule], request: AccessRequest
) -> None:
    decision = decide(RuleSet(rule_list), request)
    winners = [
        rule
        for rule in rule_list
        if (rule.effect is Effect.ALLOW) is decision.allowed
        and decide(RuleSet([rule]), request).rule_id == rule.id
    ]

    def order(rule: AclRule) -> tuple[object, ...]:
        principal, pattern = rule.verify()
        rank = 0 if principal.is_literal else 2 if principal.text == "*" else 1
        return (-rule.priority, pattern.specificity, rank, rule.id)

    assert decision.rule_id == (min(winners, key=order).id if winners else None)


@settings(deadline=None)
@given(rule_lists, st.randoms(use_true_random=False), requests())
def test_decision_depends_on_the_rules_and_not_on_their_order(
    rule_list: list[AclRule], random: object, request: AccessRequest
) -> None:
    shuffled = list(rule_list)
    random.shuffle(shuffled)  # type: ignore[attr-defined] # a random.Random
    assert decide(RuleSet(rule_list), request) == decide(RuleSet(shuffled), request)


@settings(deadline=None)
@given(rule_lists, rules("new"), st.lists(requests(), max_size=10))
def test_adding_a_deny_rule_never_allows_more(
    rule_list: list[AclRule], added: AclRule, questions: list[AccessRequest]
) -> None:
    before = RuleSet(rule_list)
    after = before.with_rule(added)
    for request in questions:
        if added.effect is Effect.DENY and decide(after, request).allowed:
            assert decide(before, request).allowed
        if added.effect is Effect.ALLOW and decide(before, request).allowed:
            assert decide(after, request).allowed


@settings(deadline=None)
@given(rule_lists, rules("gone"), requests())
def test_adding_and_removing_a_rule_leaves_no_trace(
    rule_list: list[AclRule], rule: AclRule, request: AccessRequest
) -> None:
    before = RuleSet(rule_list, epoch=1)
    after = before.with_rule(rule).without_rule("gone", epoch=1)
    assert after.rules == before.rules
    assert decide(after, request) == decide(before, request)


class RuleSetMachine(RuleBasedStateMachine):
    """Any history of changes answers as a set made at once from what is left."""

    def __init__(self) -> None:
        super().__init__()
        self.rule_set = RuleSet()
        self.model: dict[str, AclRule] = {}

    @step(rule=rules())
    def put(self, rule: AclRule) -> None:
        if rule.id in self.model:
            self.rule_set = self.rule_set.without_rule(rule.id)
        self.rule_set = self.rule_set.with_rule(rule)
        self.model[rule.id] = rule

    @step(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.model:
            rule_id = data.draw(st.sampled_from(sorted(self.model)))
            self.rule_set = self.rule_set.without_rule(rule_id)
            del self.model[rule_id]

    @step(request=requests())
    def ask(self, request: AccessRequest) -> None:
        decision = decide(self.rule_set, request)
        fresh = decide(RuleSet(self.model.values(), self.rule_set.epoch), request)
        assert decision == fresh

    @invariant()
    def nothing_is_left_of_what_was_removed(self) -> None:
        assert len(self.rule_set) == len(self.model)
        if not self.model:
            assert self.rule_set.index.classes.matching("a") == []
            assert isinstance(self.rule_set.index, RuleIndex)


TestRuleSetMachine = RuleSetMachine.TestCase
TestRuleSetMachine.settings = settings(deadline=None, max_examples=50)


@settings(deadline=None)
@given(rule_lists, modes, st.data())
def test_subscription_is_granted_when_a_delivery_inside_it_is(
    rule_list: list[AclRule], mode: Combination, data: st.DataObject
) -> None:
    request = data.draw(requests().filter(lambda r: r.resource.kind == "topic"))
    rule_set = RuleSet(rule_list, mode=mode)
    delivery = AccessRequest(request.principal, Operation.READ, request.resource)
    if not decide(rule_set, delivery).allowed:
        return
    levels = list(request.resource.segments)
    for position in range(len(levels)):
        if (position > 0 or not levels[0].startswith("$")) and data.draw(st.booleans()):
            levels[position] = "+"
    assert decide_filter(rule_set, request.principal, levels).outcome is Outcome.ALLOW
