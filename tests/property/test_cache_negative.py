from __future__ import annotations

import random

from hypothesis import given, settings, strategies as st

from acl.decide import decide
from acl.model import AccessRequest, Effect, Operation, Principal, Resource, ResourceKind
from acl.rules import AclRule, RuleSet
from cache.keyed import blake2_hasher
from cache.negative import GrantFilter
from tests.property.acl_strategies import requests, rule_lists

HASHERS = [None, blake2_hasher(b"k" * 16)]


@settings(max_examples=200, deadline=None)
@given(rule_lists, st.lists(requests(), min_size=1, max_size=20), st.sampled_from(HASHERS))
def test_negative_filter_never_rules_out_what_is_allowed(
    rule_list: list[AclRule], questions: list[AccessRequest], hasher: object
) -> None:
    rule_set = RuleSet(rule_list)
    grants = GrantFilter(rule_set.grants, hasher=hasher)  # type: ignore[arg-type] # one of HASHERS
    for request in questions:
        if decide(rule_set, request).allowed:
            assert grants.maybe(request.principal, request.resource)


# Beside what hypothesis draws: tens of thousands of cheap cases, from classes with many shapes, so that
# coarsening and the bound on lookups take part. The seed is fixed: a failure can be looked at again.
CASES = 30_000


def test_negative_filter_never_rules_out_what_is_allowed_in_many_random_worlds() -> None:
    generator = random.Random(20_260_322)
    asked = allowed = ruled_out = 0
    while asked < CASES:
        rule_set = RuleSet(a_world(generator))
        grants = GrantFilter(rule_set.grants)
        plans = {name: grants.plan(Principal(name)) for name in NAMES}
        for _ in range(300):
            request = a_question(generator)
            maybe = grants.maybe_planned(plans[request.principal.name], request.resource)
            permitted = decide(rule_set, request).allowed
            assert maybe or not permitted, request
            asked += 1
            allowed += permitted
            ruled_out += not maybe
    # the run is worth something only if it met both kinds often
    assert allowed > CASES / 20
    assert ruled_out > CASES / 20


NAMES = ["bob", "eve", "svc-1", "svc-22", "a"]
PRINCIPALS = ["bob", "eve", "svc-*", "*-1", "*", "*v*", "a"]
SEGMENTS = [
    "a",
    "b",
    "ab",
    "app-1",
    "*",
    "app-*",
    "a*",
    "*b",
    "*-*",
    "{principal}",
    "x-{principal}",
]
LEVELS = ["a", "b", "ab", "app-1", "app-12", "bob", "eve", "svc-1", "x-bob", "z"]


def a_world(generator: random.Random) -> list[AclRule]:
    rules = []
    for number in range(generator.choice([3, 10, 60])):
        body = generator.choices(SEGMENTS, k=generator.randint(0, 4))
        tail = ["**"] if not body or generator.random() < 0.3 else []
        rules.append(
            AclRule(
                id=f"r{number}",
                principal=generator.choice(PRINCIPALS),
                resource=".".join(["topic", *body, *tail]),
                operations=Operation.READ,
                effect=Effect.ALLOW if generator.random() < 0.9 else Effect.DENY,
                enabled=generator.random() < 0.95,
            )
        )
    return rules


def a_question(generator: random.Random) -> AccessRequest:
    levels = generator.choices(LEVELS, k=generator.randint(1, 5))
    resource = Resource(ResourceKind.TOPIC, tuple(levels))
    return AccessRequest(Principal(generator.choice(NAMES)), Operation.READ, resource)


@settings(deadline=None)
@given(rule_lists, st.lists(requests(), min_size=1, max_size=10))
def test_negative_filter_grown_one_by_one_answers_as_one_built_at_once(
    rule_list: list[AclRule], questions: list[AccessRequest]
) -> None:
    pairs = RuleSet(rule_list).grants
    grown = GrantFilter()
    for pair in pairs:
        grown.add(*pair)
    built = GrantFilter(pairs)
    for request in questions:
        mine = grown.maybe(request.principal, request.resource)
        assert mine is built.maybe(request.principal, request.resource)
