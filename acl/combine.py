"""How several rules that apply become one answer: the four combination modes.

Rules of this file:
- Whatever the mode, no rule means no: denied by default.
- A mode is a property of a whole policy, so two policies never mix.
- The order among rules is that of docs/grammar.md; it depends on the rules only, never on how they came.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from acl.index import Entry

MAX_NAMED: Final = 4  # rules named in an error


class Combination(StrEnum):
    """Which of the applicable rules decides.

    Attributes:
        DENY_OVERRIDES: any deny denies, else any allow allows.
        ALLOW_OVERRIDES: any allow allows, else any deny denies.
        FIRST_APPLICABLE: the first by priority, then by specificity, then deny before allow, then by id.
        ONLY_ONE_APPLICABLE: the only one there is; more are an error, which denies.
    """

    DENY_OVERRIDES = "deny-overrides"
    ALLOW_OVERRIDES = "allow-overrides"
    FIRST_APPLICABLE = "first-applicable"
    ONLY_ONE_APPLICABLE = "only-one-applicable"


@dataclass(frozen=True, slots=True)
class Combined:
    """What came out.

    Attributes:
        entry: the rule that decides, None when none does.
        error: why that is an error, empty when it is none.
    """

    entry: Entry | None
    error: str = ""


NOTHING: Final = Combined(None)


def combine(mode: Combination, applicable: Iterable[Entry]) -> Combined:
    """Return what decides among all rules that apply to a request.

    Args:
        mode: the policy's.
        applicable: in any order.
    """
    entries = in_order(mode, applicable)
    if not entries:
        return NOTHING
    if mode is Combination.ONLY_ONE_APPLICABLE and len(entries) > 1:
        return Combined(None, _too_many(entries))
    return Combined(entries[0])


def combine_inside(
    mode: Combination, inside: Iterable[Entry], covering: Iterable[Entry]
) -> Combined:
    """Return what decides whether a topic filter may be subscribed to: whether some topic in it may be allowed.

    Args:
        mode: the policy's.
        inside: allow rules that apply to some topic of the filter.
        covering: rules that apply to every topic of it.
    """
    allows = in_order(mode, inside)
    covers = in_order(mode, covering)
    if mode is Combination.ONLY_ONE_APPLICABLE:
        return _only_inside(allows, covers)
    denies = [entry for entry in covers if entry.denies]
    found = in_order(mode, [*allows, *denies])
    return Combined(found[0]) if found else NOTHING


def _only_inside(allows: Sequence[Entry], covers: Sequence[Entry]) -> Combined:
    for allow in allows:
        if all(cover is allow for cover in covers):
            return Combined(allow)
    if allows:
        return Combined(None, _too_many([*allows, *(c for c in covers if c not in allows)]))
    return Combined(covers[0]) if covers else NOTHING


def in_order(mode: Combination, entries: Iterable[Entry]) -> list[Entry]:
    """Return entries in the order in which they take precedence under a mode."""
    match mode:
        case Combination.DENY_OVERRIDES:
            return sorted(entries, key=lambda entry: entry.order)
        case Combination.ALLOW_OVERRIDES:
            return sorted(entries, key=lambda entry: (entry.denies, *entry.order[1:]))
        case Combination.FIRST_APPLICABLE | Combination.ONLY_ONE_APPLICABLE:
            return sorted(entries, key=_first_of)


def _first_of(entry: Entry) -> tuple[object, ...]:
    denies, priority, specificity, principal, rule_id = entry.order
    return priority, specificity, principal, denies, rule_id


def _too_many(entries: Sequence[Entry]) -> str:
    named = ", ".join(f"`{entry.rule_id}`" for entry in entries[:MAX_NAMED])
    more = f" and {len(entries) - MAX_NAMED} more" if len(entries) > MAX_NAMED else ""
    return f"only one rule may apply, and {len(entries)} do: {named}{more}"
