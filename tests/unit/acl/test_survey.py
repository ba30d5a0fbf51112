from __future__ import annotations

import pytest

from acl.combine import Combination
from acl.errors import RequestInvalid
from acl.model import Operation, Principal, Resource
from acl.rules import RuleSet
from acl.survey import MAX_SEARCHED_CHARACTERS, Grant, what_can, who_can
from tests.unit.acl.builders import a_rule

WRITE = Operation.WRITE


def names(
    rules: RuleSet, resource: str = "topic.telemetry.cpu"
) -> list[tuple[str, str, tuple[str, ...]]]:
    found = who_can(rules, WRITE, Resource.parse(resource))
    assert all(each.resource == resource and each.operations is WRITE for each in found)
    return [(each.principal, each.rule_id, each.unless) for each in found]


def test_who_can_names_principals_and_patterns_and_the_rules_against_them() -> None:
    rules = RuleSet(
        [
            a_rule("ann", principal="ann"),
            a_rule("bob", principal="bob"),
            a_rule("no-bob", principal="bob", effect="deny"),
            a_rule("all", principal="app-*"),
            a_rule("no-app-1", principal="app-1*", effect="deny"),
            a_rule("no-web", principal="web-*", effect="deny"),
            a_rule("reads", principal="cid", operations="read"),
            a_rule("elsewhere", principal="dan", resource="topic.other"),
        ]
    )
    assert names(rules) == [("ann", "ann", ()), ("app-*", "all", ("no-app-1",))]


@pytest.mark.parametrize("denied", ["*", "app-*"])
def test_who_can_leaves_out_what_is_denied_to_everybody(denied: str) -> None:
    rules = RuleSet(
        [a_rule("all", principal="app-*"), a_rule("no", principal=denied, effect="deny")]
    )
    assert names(rules) == []
    assert names(rules.with_mode(Combination.ALLOW_OVERRIDES)) == [("app-*", "all", ())]


@pytest.mark.parametrize(
    ("mode", "unless"),
    [
        (Combination.DENY_OVERRIDES, ("low",)),
        (Combination.ALLOW_OVERRIDES, ()),
        (Combination.FIRST_APPLICABLE, ()),
        (Combination.ONLY_ONE_APPLICABLE, ("named", "low")),
    ],
)
def test_who_can_tells_what_may_decide_otherwise_under_each_mode(
    mode: Combination, unless: tuple[str, ...]
) -> None:
    rules = RuleSet(
        [
            a_rule("all", principal="*", priority=1),
            a_rule("named", principal="ann", priority=2),
            a_rule("low", principal="b*", effect="deny"),
        ],
        mode=mode,
    )
    assert names(rules)[-1] == ("*", "all", unless)


@pytest.mark.parametrize(
    ("pattern", "resource", "found"),
    [
        ("topic.home.{principal}.**", "topic.home.ann.door", ["ann"]),
        ("topic.home.x-{principal}-y", "topic.home.x-ann-y", ["ann"]),
        ("topic.home.x-{principal}-y", "topic.home.x--y", []),
        ("topic.{principal}.{principal}", "topic.ann.ann", ["ann"]),
        ("topic.{principal}.{principal}", "topic.ann.bob", []),
        ("topic.home.{principal}", r"topic.home.a\*b", []),
        ("topic.home.{principal}*", "topic.home.an", ["a"]),
    ],
)
def test_who_can_finds_the_name_a_template_leaves(
    pattern: str, resource: str, found: list[str]
) -> None:
    rules = RuleSet([a_rule("home", principal="a*", resource=pattern)])
    assert [name for name, _, _ in names(rules, resource)] == found


def test_who_can_does_not_search_a_segment_without_end() -> None:
    rules = RuleSet([a_rule("home", principal="*", resource="topic.{principal}*")])
    with pytest.raises(RequestInvalid, match="is not searched"):
        names(rules, "topic." + "x" * (MAX_SEARCHED_CHARACTERS + 1))


def test_what_can_shows_patterns_with_the_name_in_them() -> None:
    rules = RuleSet(
        [
            a_rule(
                "home", principal="*", resource="topic.home.{principal}.**", operations="read,write"
            ),
            a_rule("public", principal="*", resource="topic.public.*", operations="read"),
            a_rule(
                "secret",
                principal="*",
                resource="topic.public.secret",
                operations="read",
                effect="deny",
            ),
            a_rule("far", principal="*", resource="topic.far.**", operations="all", effect="deny"),
            a_rule("other", principal="bob", resource="topic.**", operations="read"),
        ]
    )
    assert what_can(rules, Principal("a.b")) == (
        Grant("a.b", r"topic.home.a\.b.**", Operation.READ | WRITE, "home"),
        Grant("a.b", "topic.public.*", Operation.READ, "public", ("secret",)),
    )
