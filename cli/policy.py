"""The first policy of a development system: who may do what until an administrator says otherwise.

Rule ids are stable: the demo, the documents and the tests name them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.toml import render_value
from controller.commands import RuleDraft

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """One allow rule in the words of the rule language."""

    id: str
    principal: str
    operations: str
    resource: str
    description: str


BASE_RULES = (
    PolicyRule(
        id="everyone-connects",
        principal="*",
        operations="connect",
        resource="broker.*",
        description="whoever has a certificate of this authority may connect",
    ),
    PolicyRule(
        id="sensor-writes-telemetry",
        principal="sensor",
        operations="write",
        resource="topic.telemetry.**",
        description="the sensor publishes to telemetry/#",
    ),
    PolicyRule(
        id="sensor-calls-zscore",
        principal="sensor",
        operations="execute",
        resource="kernel.zscore",
        description="the sensor calls the kernel `zscore`",
    ),
    PolicyRule(
        id="sensor-uses-its-results",
        principal="sensor",
        operations="read,write",
        resource="topic.results.sensor.**",
        description="the sensor has its answers sent below results/sensor and reads them",
    ),
    PolicyRule(
        id="viewer-reads-telemetry",
        principal="viewer",
        operations="read",
        resource="topic.telemetry.**",
        description="the viewer reads telemetry/#",
    ),
    PolicyRule(
        id="viewer-reads-results",
        principal="viewer",
        operations="read",
        resource="topic.results.**",
        description="the viewer reads kernel results",
    ),
    PolicyRule(
        id="admin-rules-acl",
        principal="admin",
        operations="all",
        resource="acl.**",
        description="the administrator changes rules",
    ),
    PolicyRule(
        id="admin-rules-cluster",
        principal="admin",
        operations="all",
        resource="cluster.**",
        description="the administrator sees the controller's state",
    ),
    PolicyRule(
        id="admin-rules-broker",
        principal="admin",
        operations="all",
        resource="broker.**",
        description="the administrator reads the brokers' metrics",
    ),
)

BENCH_RULES = (
    PolicyRule(
        id="bench-does-all",
        principal="bench",
        operations="all",
        resource="topic.bench.**",
        description="the load generator does everything on bench/#",
    ),
)

HEADER = """\
# The first policy, as `stockade up` made it. The controller reads this file once, when it has no policy yet;
# from then on the controller's own log is the truth: change rules with `stockade acl`.
"""


def first_rules(*, bench: bool) -> tuple[PolicyRule, ...]:
    """The rules of a development system.

    Args:
        bench: add the load generator's rule.
    """
    return BASE_RULES + BENCH_RULES if bench else BASE_RULES


def draft_of(rule: PolicyRule) -> RuleDraft:
    """The rule as the admin API takes it."""
    return RuleDraft(
        id=rule.id,
        principal=rule.principal,
        resource=rule.resource,
        operations=rule.operations,
        description=rule.description,
    )


def render_policy(rules: Sequence[PolicyRule]) -> str:
    """The policy file: TOML with one `[[rules]]` table per rule.

    Args:
        rules: in the order of the file.
    """
    return HEADER + "".join(map(_render_rule, rules))


def _render_rule(rule: PolicyRule) -> str:
    return (
        "\n[[rules]]\n"
        f"id = {render_value(rule.id)}\n"
        f"principal = {render_value(rule.principal)}\n"
        f"operations = {render_value(rule.operations)}\n"
        f"resource = {render_value(rule.resource)}\n"
        'effect = "allow"\n'
        f"description = {render_value(rule.description)}\n"
    )
