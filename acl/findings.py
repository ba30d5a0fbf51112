"""What is odd about a set of rules: rules that never decide, rules that say the same, and rules that allow very much.

Rules of this file:
- Sound: a rule that is called shadowed or redundant is so for every request. What cannot be shown is not said.
- A rule with a condition or an end covers nothing: it may not apply when the other one does.
- Compared are only rules whose principals can meet; in the worst case that is every pair. For people, not for messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from acl.combine import MAX_NAMED, Combination, in_order
from acl.model import Operation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from acl.index import Entry
    from acl.patterns import PrincipalPattern
    from acl.rules import RuleSet

_WIDE_SEGMENTS: Final = 1  # `**`, or a kind and everything below it


class Kind(StrEnum):
    """What is found.

    Attributes:
        SHADOWED: it never decides, because another rule always does.
        REDUNDANT: another rule of the same effect applies wherever it does.
        CONTRADICTED: a rule of the other effect applies to some of the same.
        OVER_WIDE: it allows everybody, or everything of a kind, or all operations on it.
        EXPIRED: its end has passed.
    """

    SHADOWED = "shadowed"
    REDUNDANT = "redundant"
    CONTRADICTED = "contradicted"
    OVER_WIDE = "over-wide"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something odd.

    Attributes:
        kind: what.
        rule_id: of which rule.
        others: the rules that make it so.
        text: for people.
    """

    kind: Kind
    rule_id: str
    others: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class _Rule:
    principal: PrincipalPattern
    entry: Entry

    def covers(self, other: _Rule) -> bool:
        """Whether it applies to every request that the other applies to."""
        return (
            not self.entry.timed
            and not other.entry.mask & ~self.entry.mask
            and self.principal.segment.covers(other.principal.segment)
            and self.entry.pattern.covers(other.entry.pattern)
        )

    def may_meet(self, other: _Rule) -> bool:
        """Whether both may apply to one request; never false when they do."""
        return (
            bool(self.entry.mask & other.entry.mask)
            and self.principal.segment.may_share(other.principal.segment)
            and self.entry.pattern.may_share(other.entry.pattern, None)
        )


def findings_of(rules: RuleSet, *, now: float) -> tuple[Finding, ...]:
    """Look at the enabled rules of a set.

    Args:
        rules: the snapshot to read.
        now: seconds since the epoch.

    Returns:
        what is odd, ordered by rule.
    """
    every = [
        _Rule(principal, entry)
        for principal, entries in rules.index.by_principal()
        for entry in entries
    ]
    found: list[Finding] = []
    for rule in every:
        if rule.entry.expires_at <= now:
            text = f"`{rule.entry.rule_id}` has expired: delete it"
            found.append(Finding(Kind.EXPIRED, rule.entry.rule_id, (), text))
            continue
        found += _about(rules.mode, rule, every)
        found += _over_wide(rule)
    return tuple(sorted(found, key=lambda each: (each.rule_id, each.kind)))


def _about(mode: Combination, rule: _Rule, every: Sequence[_Rule]) -> Iterator[Finding]:
    entry = rule.entry
    covering = [other for other in every if other is not rule and other.covers(rule)]
    stronger = [o.entry for o in covering if _decides_before(mode, o.entry, entry)]
    shadows = [other for other in stronger if other.denies is not entry.denies]
    if mode is Combination.ONLY_ONE_APPLICABLE:
        if covering:
            yield _finding(
                Kind.SHADOWED,
                entry,
                (o.entry for o in covering),
                "is an error wherever it applies: {} does, too",
            )
        return
    if shadows:
        yield _finding(Kind.SHADOWED, entry, shadows, "never decides: {} always does")
        return
    alike = [
        o.entry
        for o in covering
        if o.entry.denies is entry.denies
        and (not rule.covers(o) or o.entry.rule_id < entry.rule_id)
        # Else a rule between the two would decide without the first.
        and (mode is not Combination.FIRST_APPLICABLE or _decides_before(mode, o.entry, entry))
    ]
    if alike:
        yield _finding(Kind.REDUNDANT, entry, alike, "says nothing that {} does not say")
    if not entry.denies:
        against = [
            other.entry
            for other in every
            if other.entry.denies
            and mode is not Combination.ALLOW_OVERRIDES
            and other.may_meet(rule)
        ]
        if against:
            yield _finding(Kind.CONTRADICTED, entry, against, "allows some of what {} denies")


def _decides_before(mode: Combination, one: Entry, other: Entry) -> bool:
    return in_order(mode, (one, other))[0] is one


def _finding(kind: Kind, entry: Entry, others: Iterable[Entry], text: str) -> Finding:
    ids = tuple(sorted(other.rule_id for other in others))
    more = " and others" if len(ids) > MAX_NAMED else ""
    named = ", ".join(f"`{rule_id}`" for rule_id in ids[:MAX_NAMED]) + more
    return Finding(kind, entry.rule_id, ids, f"`{entry.rule_id}` {text.format(named)}")


def _over_wide(rule: _Rule) -> Iterator[Finding]:
    entry = rule.entry
    if entry.denies:
        return
    pattern = entry.pattern
    everything = pattern.tail and len(pattern.segments) <= _WIDE_SEGMENTS
    everybody = rule.principal.segment.is_any
    all_operations = entry.mask == int(Operation.ALL)
    what = [
        word
        for word, is_so in (
            ("everybody", everybody),
            ("everything", everything),
            ("every operation", all_operations),
        )
        if is_so
    ]
    if len(what) > 1:
        text = f"`{entry.rule_id}` allows {' and '.join(what)}: is that meant?"
        yield Finding(Kind.OVER_WIDE, entry.rule_id, (), text)
