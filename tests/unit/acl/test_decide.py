from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypedDict, cast

import pytest

from acl.decide import Decision, Outcome, decide, decide_filter
from acl.model import AccessRequest, Operation, Principal, Resource, ResourceKind
from acl.rules import AclRule, RuleSet
from tests.unit.acl.builders import a_request, a_rule


class Case(TypedDict, total=False):
    policy: str
    without: list[str]
    ask: tuple[str, str, str]
    outcome: str
    rule: str
    error: bool
    reason: str


class Table(TypedDict):
    policies: dict[str, list[tuple[str, str, str, str, str, int]]]
    case: list[Case]


VECTORS = Path(__file__).parents[2] / "vectors" / "acl" / "decisions.toml"
TABLE = cast("Table", tomllib.loads(VECTORS.read_text()))


def the_rules(case: Case) -> list[AclRule]:
    return [
        a_rule(
            rule_id,
            effect=effect,
            principal=principal,
            resource=resource,
            operations=operations,
            priority=priority,
        )
        for rule_id, effect, principal, resource, operations, priority in TABLE["policies"][
            case["policy"]
        ]
        if rule_id not in case.get("without", [])
    ]


def test_table_is_as_long_as_promised() -> None:
    assert len(TABLE["case"]) >= 40


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    "case", TABLE["case"], ids=lambda case: f"{case['policy']}:{'-'.join(case['ask'])}"
)
def test_decision_conforms_to_the_table(case: Case, *, backwards: bool) -> None:
    rules = the_rules(case)
    decision = decide(
        RuleSet(rules[::-1] if backwards else rules, epoch=7), a_request(*case["ask"])
    )
    assert decision.outcome.value == case["outcome"], case["reason"]
    assert decision.rule_id == case.get("rule"), case["reason"]
    assert decision.reason.startswith("error") is case.get("error", False)
    assert decision.epoch == 7


def test_decision_is_allowed_only_when_the_outcome_is_allow() -> None:
    assert Decision(Outcome.ALLOW, "r", "", 1).allowed
    assert not Decision(Outcome.DENY, "r", "", 1).allowed


def test_decide_denies_and_says_so_when_weighing_fails() -> None:
    rules = RuleSet([a_rule()], epoch=2)
    rules._index = None  # type: ignore[assignment] # that is what is broken
    decision = decide(rules, a_request())
    assert decision.outcome is Outcome.DENY
    assert decision.rule_id is None
    assert decision.reason.startswith("error while weighing: AttributeError")
    assert decision.epoch == 2
    assert decide_filter(rules, Principal("a"), ["#"]).reason.startswith("error while weighing")


def test_decide_filter_equals_decide_of_the_filter_resource() -> None:
    rules = RuleSet(
        [
            a_rule(operations="read"),
            a_rule("d", operations="read", effect="deny", resource="topic.telemetry.x"),
        ]
    )
    for text in ("telemetry/#", "telemetry/x", "telemetry/cpu", "x/#", "+", "telemetry/+"):
        request = AccessRequest(Principal("sensor"), Operation.READ, Resource.topic(text))
        assert decide_filter(rules, Principal("sensor"), text.split("/")) == decide(rules, request)


def test_decide_filter_without_levels_is_an_error_and_denies() -> None:
    decision = decide_filter(RuleSet([a_rule()]), Principal("sensor"), [])
    assert not decision.allowed
    assert decision.reason.startswith("error")


def test_decide_treats_wildcard_characters_of_other_kinds_as_characters() -> None:
    rules = RuleSet([a_rule(resource="kernel.#", operations="execute")])
    request = AccessRequest(
        Principal("sensor"), Operation.EXECUTE, Resource(ResourceKind.KERNEL, ("#",))
    )
    assert decide(rules, request).allowed
