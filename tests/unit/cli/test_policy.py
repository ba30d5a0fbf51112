"""The first policy gives each client what the documents say, and nothing else."""

from __future__ import annotations

import tomllib

import pytest

from acl.decide import decide
from acl.model import AccessRequest, Effect, Operation, Principal, Resource, parse_operations
from acl.rules import AclRule, RuleSet
from cli.policy import first_rules, render_policy


def rule_set(*, bench: bool = False) -> RuleSet:
    """The first policy as the decider takes it, by way of its file."""
    tables = tomllib.loads(render_policy(first_rules(bench=bench)))["rules"]
    rules = [
        AclRule(
            id=table["id"],
            principal=table["principal"],
            resource=table["resource"],
            operations=parse_operations(table["operations"]),
            effect=Effect(table["effect"]),
            description=table["description"],
        )
        for table in tables
    ]
    return RuleSet(rules, epoch=1)


def allowed(rules: RuleSet, name: str, operation: Operation, resource: Resource) -> bool:
    """Whether the policy allows it."""
    request = AccessRequest(principal=Principal(name=name), operation=operation, resource=resource)
    return decide(rules, request).allowed


GRANTED = [
    ("sensor", Operation.CONNECT, Resource.parse("broker.broker")),
    ("sensor", Operation.WRITE, Resource.topic("telemetry/cpu")),
    ("sensor", Operation.EXECUTE, Resource.kernel("zscore")),
    ("sensor", Operation.WRITE, Resource.topic("results/sensor/a")),
    ("sensor", Operation.READ, Resource.topic("results/sensor/a")),
    ("viewer", Operation.READ, Resource.topic("telemetry/cpu")),
    ("viewer", Operation.READ, Resource.topic("telemetry/#")),
    ("viewer", Operation.READ, Resource.topic("results/sensor/a")),
    ("admin", Operation.CREATE, Resource.parse("acl.rules")),
    ("admin", Operation.DESCRIBE, Resource.parse("broker.broker.metrics")),
    ("admin", Operation.DESCRIBE, Resource.parse("cluster.status")),
]

REFUSED = [
    ("sensor", Operation.READ, Resource.topic("telemetry/cpu")),
    ("sensor", Operation.EXECUTE, Resource.kernel("other")),
    ("sensor", Operation.WRITE, Resource.topic("results/viewer/a")),
    ("sensor", Operation.WRITE, Resource.topic("bench/a")),
    ("viewer", Operation.WRITE, Resource.topic("telemetry/cpu")),
    ("viewer", Operation.EXECUTE, Resource.kernel("zscore")),
    ("viewer", Operation.WRITE, Resource.topic("results/sensor/a")),
    ("viewer", Operation.LIST, Resource.parse("acl.rules")),
    ("admin", Operation.WRITE, Resource.topic("telemetry/cpu")),
    ("stranger", Operation.READ, Resource.topic("telemetry/cpu")),
    ("bench", Operation.WRITE, Resource.topic("bench/a")),
]


@pytest.mark.parametrize(("name", "operation", "resource"), GRANTED)
def test_policy_grants_what_the_documents_say(
    name: str, operation: Operation, resource: Resource
) -> None:
    assert allowed(rule_set(), name, operation, resource)


@pytest.mark.parametrize(("name", "operation", "resource"), REFUSED)
def test_policy_grants_nothing_else(name: str, operation: Operation, resource: Resource) -> None:
    assert not allowed(rule_set(), name, operation, resource)


def test_bench_may_do_all_on_its_topics_only() -> None:
    rules = rule_set(bench=True)
    assert allowed(rules, "bench", Operation.WRITE, Resource.topic("bench/a"))
    assert allowed(rules, "bench", Operation.READ, Resource.topic("bench/#"))
    assert not allowed(rules, "bench", Operation.WRITE, Resource.topic("telemetry/cpu"))


def test_rule_ids_are_unique_and_stable() -> None:
    ids = [rule.id for rule in first_rules(bench=True)]
    assert len(set(ids)) == len(ids)
    assert {"everyone-connects", "sensor-calls-zscore", "viewer-reads-results"} <= set(ids)
