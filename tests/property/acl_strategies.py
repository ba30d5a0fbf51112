"""Strategies over a small world, in which random rules and random questions often meet, and a naive oracle.

The oracle shares no code with the room: it translates patterns to regular expressions over the text of
whole paths, where U+0001 ends every segment.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from acl.combine import Combination
from acl.model import AccessRequest, Effect, Operation, Principal, Resource, ResourceKind
from acl.rules import AclRule

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = ["bob", "eve", "svc-1", "svc-2", "a", "$a"]
LEVELS = ["a", "b", "ab", "app-1", "app-12", "bob", "svc-1", "", "$a", "a.b", "*", "{principal}"]
OPERATIONS = [Operation.READ, Operation.WRITE, Operation.EXECUTE]

names = st.sampled_from(NAMES)
principal_patterns = st.sampled_from(["bob", "eve", "svc-*", "*-1", "*", "s*c*", "a", "$*", "$a"])
pattern_segments = st.sampled_from(
    [
        *("a", "b", "ab", "*", "*", "a*", "*b", "app-*", "a*1", "*p-1*", "", "$a", "$*", "svc-1"),
        *("{principal}", "{principal}*", "x{principal}", r"a\.b", r"\*", r"\{principal\}"),
    ]
)
kinds = st.sampled_from(["topic", "topic", "topic", "kernel", "*"])


@st.composite
def resource_patterns(draw: st.DrawFn) -> str:
    body = draw(st.lists(pattern_segments, max_size=4))
    tail = draw(st.booleans()) or not body
    if not body and draw(st.integers(0, 5)) == 0:
        return "**"
    return ".".join([draw(kinds), *body, *(["**"] if tail else [])])


@st.composite
def rules(draw: st.DrawFn, rule_id: str | None = None) -> AclRule:
    operations = draw(st.sets(st.sampled_from(OPERATIONS), min_size=1))
    mask = Operation(0)
    for operation in operations:
        mask |= operation
    return AclRule(
        id=rule_id or draw(st.from_regex(r"r[0-9]{1,4}", fullmatch=True)),
        principal=draw(principal_patterns),
        resource=draw(resource_patterns()),
        operations=mask,
        effect=draw(st.sampled_from([Effect.ALLOW, Effect.ALLOW, Effect.DENY])),
        priority=draw(st.integers(-1, 1)),
        enabled=draw(st.integers(0, 9)) > 0,
    )


modes = st.sampled_from(Combination)
rule_lists = st.lists(rules(), max_size=25, unique_by=lambda rule: rule.id)


@st.composite
def requests(draw: st.DrawFn) -> AccessRequest:
    kind = draw(st.sampled_from([ResourceKind.TOPIC, ResourceKind.TOPIC, ResourceKind.KERNEL]))
    segments = draw(st.lists(st.sampled_from(LEVELS), min_size=1, max_size=5))
    operation = draw(st.sampled_from(OPERATIONS))
    return AccessRequest(Principal(draw(names)), operation, Resource(kind, tuple(segments)))


def oracle_matches(pattern: str, path: Sequence[str], owner: str) -> bool:
    """Whether a resource pattern matches a path, the slow and obvious way."""
    if path[0] == "topic" and path[1].startswith("$") and not _writes_dollar(pattern):
        return False
    subject = "".join(segment + "\1" for segment in path)
    return re.fullmatch(_expression(pattern, owner), subject, re.DOTALL) is not None


def _writes_dollar(pattern: str) -> bool:
    return re.match(r"[^.]*\.\$", pattern) is not None


def _expression(pattern: str, owner: str) -> str:
    everything = "(?:[^\1]*\1)+"
    if pattern == "**":
        return everything
    tail = pattern.endswith(".**")
    body = pattern[: -len(".**")] if tail else pattern
    written = re.sub(
        r"\\(.)|(\{principal\})|(\*)|(\.)|(.)",
        lambda found: (
            re.escape(found[1])
            if found[1]
            else re.escape(owner)
            if found[2]
            else "[^\1]*"
            if found[3]
            else "\1"
            if found[4]
            else re.escape(found[5])
        ),
        body,
    )
    return written + "\1" + (everything if tail else "")


def oracle_principal(pattern: str, name: str) -> bool:
    """Whether a principal pattern matches a name, the slow and obvious way."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None


def oracle_applicable(rule_list: Sequence[AclRule], request: AccessRequest) -> list[AclRule]:
    """All rules tried."""
    return [
        rule
        for rule in rule_list
        if rule.enabled
        and rule.operations & request.operation
        and oracle_principal(rule.principal, request.principal.name)
        and oracle_matches(rule.resource, request.resource.path, request.principal.name)
    ]


def oracle_allows(
    rule_list: Sequence[AclRule],
    request: AccessRequest,
    mode: Combination = Combination.DENY_OVERRIDES,
) -> bool:
    """Deny by default; of all rules that apply, the mode tells which counts."""
    found = oracle_applicable(rule_list, request)
    effects = [rule.effect for rule in found]
    match mode:
        case Combination.DENY_OVERRIDES:
            return Effect.ALLOW in effects and Effect.DENY not in effects
        case Combination.ALLOW_OVERRIDES:
            return Effect.ALLOW in effects
        case Combination.FIRST_APPLICABLE:
            first = min(found, key=oracle_order, default=None)
            return first is not None and first.effect is Effect.ALLOW
        case Combination.ONLY_ONE_APPLICABLE:
            return effects == [Effect.ALLOW]


def oracle_order(rule: AclRule) -> tuple[object, ...]:
    """Where a rule stands, whatever its effect says first: priority, specificity, deny before allow, id."""
    principal, pattern = rule.verify()
    rank = 0 if principal.is_literal else 2 if principal.text == "*" else 1
    return (-rule.priority, pattern.specificity, rank, rule.effect is Effect.ALLOW, rule.id)
