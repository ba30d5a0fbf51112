from __future__ import annotations

import pytest

from acl.combine import Combination
from acl.findings import Finding, Kind, findings_of
from acl.patterns import parse_pattern
from acl.rules import AclRule, RuleSet
from tests.unit.acl.builders import a_rule

DENY, ALLOW, FIRST, ONE = Combination


def found(
    rules: list[AclRule], mode: Combination = DENY, *, now: float = 0.0
) -> dict[str, Finding]:
    return {each.rule_id: each for each in findings_of(RuleSet(rules, mode=mode), now=now)}


WIDE = a_rule("wide", principal="*", resource="topic.a.**", operations="read,write")
DENIED = a_rule("denied", principal="*", resource="topic.**", effect="deny", operations="all")
NARROW = a_rule("narrow", principal="sensor", resource="topic.a.b", operations="write")
PARTLY = a_rule("partly", principal="s*", resource="topic.a.b", effect="deny", operations="write")


def test_rule_that_another_always_overrules_is_shadowed() -> None:
    said = found([NARROW, DENIED])
    assert said["narrow"].kind is Kind.SHADOWED
    assert said["narrow"].others == ("denied",)
    assert said["narrow"].text == "`narrow` never decides: `denied` always does"
    said = found([NARROW, DENIED, WIDE], ALLOW)
    assert "narrow" in said
    assert said["narrow"].kind is Kind.REDUNDANT
    assert "denied" not in said, "it denies what nothing allows"


def test_rule_that_says_nothing_new_is_redundant_and_of_two_alike_the_later_one() -> None:
    assert found([NARROW, WIDE])["narrow"].kind is Kind.REDUNDANT
    twins = [a_rule("a"), a_rule("b")]
    assert {rule_id: each.others for rule_id, each in found(twins).items()} == {"b": ("a",)}


def test_rule_that_is_denied_in_part_is_contradicted() -> None:
    said = found([WIDE, PARTLY])
    assert (said["wide"].kind, said["wide"].others) == (Kind.CONTRADICTED, ("partly",))
    assert "partly" not in said
    assert found([WIDE, PARTLY], ALLOW)["partly"].kind is Kind.SHADOWED


def test_priority_decides_who_is_in_whose_shadow_where_it_decides_at_all() -> None:
    low = a_rule(
        "low", principal="*", resource="topic.a.**", effect="deny", operations="all", priority=-1
    )
    said = found([WIDE, low], FIRST)
    assert said["wide"].kind is Kind.CONTRADICTED
    high = a_rule(
        "high", principal="*", resource="topic.a.**", effect="deny", operations="all", priority=1
    )
    assert found([WIDE, high], FIRST)["wide"].kind is Kind.SHADOWED


def test_rule_that_never_applies_alone_is_an_error_where_only_one_may() -> None:
    said = found([NARROW, WIDE], ONE)
    assert (said["narrow"].kind, said["narrow"].others) == (Kind.SHADOWED, ("wide",))
    assert "is an error wherever it applies" in said["narrow"].text
    assert "wide" not in said


def test_rule_with_a_condition_or_an_end_shadows_nothing() -> None:
    timed = a_rule(
        "timed",
        principal="*",
        resource="topic.**",
        effect="deny",
        operations="all",
        condition='time in "Mon"',
    )
    ends = a_rule(
        "ends", principal="*", resource="topic.**", effect="deny", operations="all", expires_at=9.0
    )
    said = found([NARROW, timed, ends])
    assert (said["narrow"].kind, said["narrow"].others) == (Kind.CONTRADICTED, ("ends", "timed"))
    assert found([NARROW, ends], now=9.0)["ends"].kind is Kind.EXPIRED


@pytest.mark.parametrize(
    ("principal", "resource", "operations", "wide"),
    [
        ("*", "topic.**", "read", True),
        ("*", "**", "read", True),
        ("*", "broker.x", "all", True),
        ("admin", "acl.**", "all", True),
        ("admin", "acl.**", "read", False),
        ("*", "topic.a.**", "read", False),
        ("admin", "acl.rules", "all", False),
    ],
)
def test_rule_that_allows_very_much_is_over_wide(
    *, principal: str, resource: str, operations: str, wide: bool
) -> None:
    rule = a_rule("r", principal=principal, resource=resource, operations=operations)
    assert (found([rule]).get("r") is not None) is wide
    deny = a_rule("r", principal=principal, resource=resource, operations=operations, effect="deny")
    assert found([deny]) == {}


@pytest.mark.parametrize(
    ("wider", "narrower", "covers"),
    [
        ("**", "topic.a", True),
        ("**", "**", True),
        ("topic.**", "topic.a", True),
        ("topic.**", "topic.a.**", True),
        ("topic.a.**", "topic.a", False),
        ("topic.a.**", "topic.**", False),
        ("topic.a.**", "topic.a.b.c", True),
        ("topic.*", "topic.a", True),
        ("topic.*", "topic.{principal}", True),
        ("topic.{principal}", "topic.{principal}", True),
        ("topic.{principal}", "topic.a", False),
        ("topic.a*", "topic.ab", True),
        ("topic.a*", "topic.a*", True),
        ("topic.a*", "topic.ab*", False),
        ("topic.*.b", "topic.a.*", False),
        ("topic.**", "topic.$SYS.**", False),
        ("topic.$SYS.**", "topic.$SYS.a", True),
        ("**", "topic.$SYS.a", False),
        ("*.**", "kernel.x", True),
    ],
)
def test_pattern_covers_another(*, wider: str, narrower: str, covers: bool) -> None:
    assert parse_pattern(wider).covers(parse_pattern(narrower)) is covers
