"""Who can, and what can: the rules read the other way round.

Rules of this file:
- What is said is true of every name it covers, or has the rules beside it that may say otherwise for some of them
  (`unless`). For one name and one resource `acl.decide` is asked, so the two never differ.
- Linear in the number of rules: for people, not for messages; ask in a thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from acl.combine import Combination, in_order
from acl.decide import decide
from acl.errors import NameInvalid, RequestInvalid
from acl.globs import OWNER
from acl.index import applying
from acl.model import AccessRequest, Operation, Principal, verify_principal_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from acl.globs import SegmentPattern
    from acl.index import Entry
    from acl.model import Resource
    from acl.patterns import PrincipalPattern
    from acl.rules import RuleSet


MAX_SEARCHED_CHARACTERS: Final = 255  # of a segment that may hold a name anywhere


@dataclass(frozen=True, slots=True)
class Grant:
    """Something that is allowed.

    Attributes:
        principal: a name, or a pattern of names.
        resource: a resource's text, or a pattern of resources.
        operations: which.
        rule_id: the rule that allows it.
        unless: rules that apply to some of it, too, and may decide otherwise there.
    """

    principal: str
    resource: str
    operations: Operation
    rule_id: str
    unless: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Row:
    """A rule that applies to the resource in question, for the names that `principal` stands for."""

    principal: PrincipalPattern
    entry: Entry
    name: str | None  # the only name it applies to, if there is only one


def who_can(
    rules: RuleSet, operation: Operation, resource: Resource, at: float | None = None
) -> tuple[Grant, ...]:
    """Say who may do one operation on one resource, by name or pattern of names.

    Args:
        rules: the snapshot to read.
        operation: one.
        resource: no filter.
        at: seconds since the epoch; None: not known, see `acl.decide.decide`.

    Returns:
        ordered by principal, names before patterns.

    Raises:
        RequestInvalid: a segment is too long for a rule that may have a name anywhere in it.
    """
    rows = list(_rows(rules, int(operation), resource.path, at))
    named = {row.name for row in rows if row.name is not None}
    found = [
        Grant(name, resource.text, operation, decision.rule_id or "")
        for name in sorted(named)
        if (
            decision := decide(rules, AccessRequest(Principal(name), operation, resource), at)
        ).allowed
    ]
    wide = [row for row in rows if row.name is None and not row.entry.denies]
    for row in sorted(wide, key=lambda row: (row.principal.text, row.entry.rule_id)):
        others = [o for o in rows if o is not row and _of(row).may_share(_of(o))]
        against = _against(rules.mode, row.entry, [o.entry for o in others])
        everybody = {o.entry.rule_id for o in others if o.name is None and _wider(o, row)}
        if everybody.isdisjoint(entry.rule_id for entry in against):
            unless = tuple(entry.rule_id for entry in against)
            found.append(
                Grant(row.principal.text, resource.text, operation, row.entry.rule_id, unless)
            )
    return tuple(found)


def _rows(rules: RuleSet, operation: int, path: Sequence[str], at: float | None) -> Iterator[_Row]:
    for principal, entries in rules.index.by_principal():
        for entry in entries:
            if not entry.mask & operation or not entry.applies(at)[0]:
                continue
            pattern = entry.pattern
            if not pattern.has_owner:
                if pattern.matches(path):
                    name = principal.text if principal.is_literal else None
                    yield _Row(principal, entry, name)
                continue
            for name in _owners(pattern.segments, path):
                if principal.matches(name) and pattern.matches(path, name):
                    yield _Row(principal, entry, name)
                    break


def _owners(segments: Sequence[SegmentPattern], path: Sequence[str]) -> Iterator[str]:
    """Yield the names for which a pattern with `{principal}` may match a path: what its first such segment leaves open."""
    for segment, text in zip(segments, path, strict=False):
        if segment.has_owner:
            yield from filter(_is_name, _between(segment, text))
            return


def _between(segment: SegmentPattern, text: str) -> Iterator[str]:
    first = segment.parts[0]
    if segment.is_literal and first.count(OWNER) == 1:
        before, after = first.split(OWNER)
        if text.startswith(before) and text.endswith(after):
            yield text[len(before) : len(text) - len(after)]
        return
    # With stars beside it, or twice: any part of the text may be the name.
    if len(text) > MAX_SEARCHED_CHARACTERS:
        raise RequestInvalid(
            f"a segment of more than {MAX_SEARCHED_CHARACTERS} characters is not searched for a name"
        )
    for start in range(len(text)):
        for end in range(start + 1, len(text) + 1):
            yield text[start:end]


def _is_name(text: str) -> bool:
    try:
        verify_principal_name(text)
    except NameInvalid:
        return False
    return True


def _of(row: _Row) -> SegmentPattern:
    return row.principal.segment


def _wider(row: _Row, other: _Row) -> bool:
    """Whether one applies to every name that the other does."""
    return row.principal.segment.is_any or row.principal.text == other.principal.text


def _against(mode: Combination, allow: Entry, others: Iterable[Entry]) -> list[Entry]:
    """Return those of other rules that may decide otherwise where an allow rule applies, too."""
    match mode:
        case Combination.DENY_OVERRIDES:
            return in_order(mode, [entry for entry in others if entry.denies])
        case Combination.ALLOW_OVERRIDES:
            return []
        case Combination.FIRST_APPLICABLE:
            ordered = in_order(mode, [allow, *others])
            return [entry for entry in ordered[: ordered.index(allow)] if entry.denies]
        case Combination.ONLY_ONE_APPLICABLE:
            return in_order(mode, others)


def what_can(rules: RuleSet, principal: Principal, at: float | None = None) -> tuple[Grant, ...]:
    """Say what one principal may do, by patterns of resources with its name in place of `{principal}`.

    Args:
        rules: the snapshot to read.
        principal: who.
        at: as for `who_can`.

    Returns:
        ordered by resource, then by rule.
    """
    name = principal.name
    entries = applying(rules.index.of_principal(name, int(Operation.ALL)), at).entries
    found: list[Grant] = []
    for entry in entries:
        if entry.denies:
            continue
        others = [
            other
            for other in entries
            if other is not entry
            and other.mask & entry.mask
            and entry.pattern.may_share(other.pattern, name)
        ]
        unless = tuple(other.rule_id for other in _against(rules.mode, entry, others))
        text = entry.pattern.bound_text(name)
        found.append(Grant(name, text, Operation(entry.mask), entry.rule_id, unless))
    return tuple(sorted(found, key=lambda grant: (grant.resource, grant.rule_id)))
