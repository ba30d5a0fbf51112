"""The one decider: a rule set and a question in, a decision out.

Rules of this file:
- Deny by default: no rule, no permission; an exception while weighing denies and says so.
- An explicit deny wins over every allow, whatever the priorities. Among rules of the winning effect
  the one that takes precedence is named: higher priority, then the more specific resource pattern,
  then the more specific principal pattern, then the smaller id.
- Whether a filter may be subscribed to is not whether a message may be delivered: every delivery is
  decided again, so granting a filter that is partly denied discloses nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from acl.errors import RequestInvalid
from acl.model import AccessRequest, Operation, Resource, ResourceKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acl.index import Entry
    from acl.model import Principal
    from acl.rules import RuleSet


class Outcome(StrEnum):
    """What was decided."""

    ALLOW = "allow"
    DENY = "deny"


_ALLOW: Final = Outcome.ALLOW  # looking a member up costs more than comparing it


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer, with why.

    Attributes:
        outcome: allow or deny.
        rule_id: the rule that took precedence, or None when none matched.
        reason: for the audit; never sent to a client.
        epoch: the policy epoch that it was decided by.
        valid_until: Unix time in seconds; infinite when only a policy change can end it.
        id: given by whoever issues the decision, `d-` and 12 hexadecimal digits.
        answered: false for a denial because nobody could decide: the next time the answer may be another.
    """

    outcome: Outcome
    rule_id: str | None
    reason: str
    epoch: int
    valid_until: float = math.inf
    id: str = ""
    answered: bool = True

    @property
    def allowed(self) -> bool:
        """Whether the outcome is allow, and nothing else."""
        return self.outcome is _ALLOW


def decide(rules: RuleSet, request: AccessRequest) -> Decision:
    """Decide one request.

    A READ of a topic filter (`Resource.is_filter`) is decided as a subscription, see `decide_filter`.
    Never raises: an error is a denial whose reason begins with `error`.
    """
    try:
        resource = request.resource
        if resource.is_filter:
            return _decide_subscription(rules, request)
        operation = int(request.operation)
        entry = rules.index.best(request.principal.name, resource.path, operation)
        return _decision(rules, entry)
    except Exception as error:  # noqa: BLE001 - whatever went wrong, the answer is no and says why
        return _error(rules, error)


def decide_filter(rules: RuleSet, principal: Principal, levels: Sequence[str]) -> Decision:
    """Decide whether a principal may subscribe to an MQTT topic filter.

    Allowed when some allow rule for READ matches some topic inside the filter and no deny rule matches
    all of them. Linear in the number of rules that match the principal; asked once per subscription.
    Never raises: an error is a denial whose reason begins with `error`.

    Args:
        rules: the snapshot to decide by.
        principal: who wants to subscribe.
        levels: the filter, cut at `/`.
    """
    try:
        resource = Resource(ResourceKind.TOPIC, tuple(levels))
        if not resource.is_filter:
            return decide(rules, AccessRequest(principal, Operation.READ, resource))
        return _weigh_filter(rules, principal.name, resource.segments)
    except Exception as error:  # noqa: BLE001 - whatever went wrong, the answer is no and says why
        return _error(rules, error)


def _decide_subscription(rules: RuleSet, request: AccessRequest) -> Decision:
    if request.operation is not Operation.READ:
        raise RequestInvalid(f"`{request.resource.text}` is a filter, which can only be read")
    return _weigh_filter(rules, request.principal.name, request.resource.segments)


def _weigh_filter(rules: RuleSet, name: str, levels: tuple[str, ...]) -> Decision:
    if "#" in levels[:-1]:
        raise RequestInvalid("`#` is only the last level of a filter")
    best: Entry | None = None
    for entry in rules.index.of_principal(name, int(Operation.READ)):
        if best is not None and best.order < entry.order:
            continue
        relate = entry.pattern.covers_filter if entry.denies else entry.pattern.overlaps_filter
        if relate(levels, name):
            best = entry
    return _decision(rules, best)


def _decision(rules: RuleSet, entry: Entry | None) -> Decision:
    if entry is None:
        return Decision(Outcome.DENY, None, "no rule allows it", rules.epoch)
    if entry.denies:
        reason = f"denied by rule `{entry.rule_id}`"
        return Decision(Outcome.DENY, entry.rule_id, reason, rules.epoch)
    return Decision(Outcome.ALLOW, entry.rule_id, f"allowed by rule `{entry.rule_id}`", rules.epoch)


def _error(rules: RuleSet, error: Exception) -> Decision:
    reason = f"error while weighing: {type(error).__name__}: {error}"
    return Decision(Outcome.DENY, None, reason, rules.epoch)
