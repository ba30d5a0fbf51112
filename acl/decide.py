"""The one decider: a rule set and a question in, a decision out.

Rules of this file:
- Deny by default: no rule, no permission; an exception while weighing denies and says so.
- What several rules that apply add up to is the policy's combination mode (acl/combine.py). By default an explicit deny
  wins over every allow, whatever the priorities. Among rules of the winning effect the one that takes precedence is
  named: higher priority, then the more specific resource pattern, then the more specific principal pattern, then
  the smaller id.
- Whether a filter may be subscribed to is not whether a message may be delivered: every delivery is
  decided again, so granting a filter that is partly denied discloses nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from acl.combine import Combination, Combined, combine, combine_inside, in_order
from acl.errors import RequestInvalid
from acl.index import applying
from acl.model import AccessRequest, Operation, Resource, ResourceKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acl.index import Entry, Found
    from acl.model import Principal
    from acl.rules import RuleSet


class Outcome(StrEnum):
    """What was decided."""

    ALLOW = "allow"
    DENY = "deny"


_ALLOW: Final = Outcome.ALLOW  # looking a member up costs more than comparing it
_DENY_OVERRIDES: Final = Combination.DENY_OVERRIDES


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


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, and what else there was.

    Attributes:
        decision: what `decide` returns.
        applicable: ids of all rules that apply, in the order in which they take precedence; of a filter, the allow rules
            that apply to some topic in it and the rules that apply to all of them.
    """

    decision: Decision
    applicable: tuple[str, ...]


def decide(rules: RuleSet, request: AccessRequest, at: float | None = None) -> Decision:
    """Decide one request.

    A READ of a topic filter (`Resource.is_filter`) is decided as a subscription, see `decide_filter`.
    Never raises: an error is a denial whose reason begins with `error`.

    Args:
        rules: the snapshot to decide by.
        request: what is asked.
        at: seconds since the epoch; None: not known, and then rules that depend on it deny or do not allow.
    """
    try:
        resource = request.resource
        name, operation = request.principal.name, int(request.operation)
        if resource.is_filter:
            inside, covering = _relating(rules, request, at)
            combined = combine_inside(rules.mode, inside.entries, covering.entries)
            return _combined(rules, combined, min(inside.until, covering.until))
        if rules.mode is _DENY_OVERRIDES:  # the common mode need not find every rule
            entry, until = rules.index.best(name, resource.path, operation, at)
            return _decision(rules, entry, until)
        found = rules.index.applicable(name, resource.path, operation, at)
        return _combined(rules, combine(rules.mode, found.entries), found.until)
    except Exception as error:  # noqa: BLE001 - whatever went wrong, the answer is no and says why
        return _error(rules, error)


def decide_filter(
    rules: RuleSet, principal: Principal, levels: Sequence[str], at: float | None = None
) -> Decision:
    """Decide whether a principal may subscribe to an MQTT topic filter.

    Allowed when by the policy's mode some topic inside the filter may be allowed, as far as the rules tell that apply to
    all of them. Linear in the number of rules that match the principal; asked once per subscription.
    Never raises: an error is a denial whose reason begins with `error`.

    Args:
        rules: the snapshot to decide by.
        principal: who wants to subscribe.
        levels: the filter, cut at `/`.
        at: as for `decide`.
    """
    try:
        resource = Resource(ResourceKind.TOPIC, tuple(levels))
        return decide(rules, AccessRequest(principal, Operation.READ, resource), at)
    except Exception as error:  # noqa: BLE001 - whatever went wrong, the answer is no and says why
        return _error(rules, error)


def explain(rules: RuleSet, request: AccessRequest, at: float | None = None) -> Explanation:
    """Decide one request and name all rules that apply; linear in their number. Never raises."""
    decision = decide(rules, request, at)
    try:
        if request.resource.is_filter:
            inside, covering = _relating(rules, request, at)
            both = (*inside.entries, *covering.entries)
            found = tuple({id(entry): entry for entry in both}.values())
        else:
            name, operation = request.principal.name, int(request.operation)
            found = rules.index.applicable(name, request.resource.path, operation, at).entries
    except Exception as error:  # noqa: BLE001 - see `decide`
        return Explanation(_error(rules, error), ())
    ordered = in_order(rules.mode, found)
    return Explanation(decision, tuple(entry.rule_id for entry in ordered))


def _relating(rules: RuleSet, request: AccessRequest, at: float | None) -> tuple[Found, Found]:
    """Return the allow rules for some topic of a filter, and the rules for all of them."""
    levels, name = request.resource.segments, request.principal.name
    if request.operation is not Operation.READ:
        raise RequestInvalid(f"`{request.resource.text}` is a filter, which can only be read")
    if "#" in levels[:-1]:
        raise RequestInvalid("`#` is only the last level of a filter")
    entries = list(rules.index.of_principal(name, int(Operation.READ)))
    inside = (e for e in entries if not e.denies and e.pattern.overlaps_filter(levels, name))
    covering = (e for e in entries if e.pattern.covers_filter(levels, name))
    return applying(inside, at), applying(covering, at)


def _combined(rules: RuleSet, combined: Combined, until: float) -> Decision:
    if combined.error:
        reason = f"error: {combined.error}"
        return Decision(Outcome.DENY, None, reason, rules.epoch, valid_until=until)
    return _decision(rules, combined.entry, until)


def _decision(rules: RuleSet, entry: Entry | None, until: float) -> Decision:
    if entry is None:
        reason, rule_id, outcome = "no rule allows it", None, Outcome.DENY
    elif entry.denies:
        reason, rule_id = f"denied by rule `{entry.rule_id}`", entry.rule_id
        outcome = Outcome.DENY
    else:
        reason, rule_id = f"allowed by rule `{entry.rule_id}`", entry.rule_id
        outcome = Outcome.ALLOW
    return Decision(outcome, rule_id, reason, rules.epoch, valid_until=until)


def _error(rules: RuleSet, error: Exception) -> Decision:
    reason = f"error while weighing: {type(error).__name__}: {error}"
    return Decision(Outcome.DENY, None, reason, rules.epoch)
