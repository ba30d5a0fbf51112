"""Rules, and the immutable set of them that decisions are made by.

Rules of this file:
- A rule that exists is well formed: text that the grammar refuses never gets into a set.
- A set never changes. A changed copy has the next epoch and costs microseconds, whatever the size.
- The answers of a set depend on its rules only, not on the order in which they came.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, Self

from acl.combine import Combination
from acl.conditions import parse_condition
from acl.errors import RuleInvalid
from acl.index import Entry, RuleIndex
from acl.model import Effect, Operation
from acl.patterns import (
    Pattern,
    PrincipalPattern,
    parse_pattern,
    parse_principal_pattern,
    rank_of,
)
from acl.persistent import PersistentMap

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_RULE_ID_CHARACTERS: Final = 128  # goes into every log line and metric exemplar
MAX_RULE_NAME_CHARACTERS: Final = 255
MAX_RULE_DESCRIPTION_CHARACTERS: Final = 4096
MAX_TAGS: Final = 16
MAX_MOMENT_S: Final = 253_402_300_800  # the year 10000
MAX_RULE_PRIORITY: Final = 1_000_000  # of either sign; leaves room between any two

_TAG: Final = re.compile(r"[A-Za-z0-9._:/-]{1,64}")
_RULE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class AclRule:
    """One rule: who, on what, may or may not do what.

    Attributes:
        id: stable name, 1 to 128 characters of letters, digits and `. _ : @ / -`.
        principal: principal pattern (docs/grammar.md).
        resource: resource pattern (docs/grammar.md).
        operations: at least one.
        effect: allow or deny.
        priority: higher is named first among rules of one effect; -1,000,000 to 1,000,000.
        name: for people, at most 255 characters.
        description: for people, at most 4096 characters.
        enabled: a disabled rule is kept but takes no part in any decision.
        condition: when it applies (docs/grammar.md); empty: always.
        expires_at: second since the epoch from which on it does not apply any more; None: never.
        tags: words to find it by, at most 16 of at most 64 characters.

    Raises:
        AclError: what is wrong with it, and what to write.
    """

    id: str
    principal: str
    resource: str
    operations: Operation
    effect: Effect
    priority: int = 0
    name: str = ""
    description: str = ""
    enabled: bool = True
    condition: str = ""
    expires_at: float | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.verify()

    def verify(self) -> tuple[PrincipalPattern, Pattern]:
        """Return the parsed patterns of a well-formed rule.

        Raises:
            AclError: it is not well formed.
        """
        if len(self.id) > MAX_RULE_ID_CHARACTERS or not _RULE_ID.fullmatch(self.id):
            raise RuleInvalid(
                f"rule id `{self.id[:MAX_RULE_ID_CHARACTERS]}`: use 1 to {MAX_RULE_ID_CHARACTERS} letters,"
                " digits or `._:@/-`, beginning with a letter or digit"
            )
        if not 0 < int(self.operations) <= int(Operation.ALL):
            raise RuleInvalid(f"rule `{self.id}` needs at least one known operation")
        if type(self.effect) is not Effect:  # a plain text would compare equal, but not be it
            raise RuleInvalid(f"rule `{self.id}`: the effect is `allow` or `deny`")
        if abs(self.priority) > MAX_RULE_PRIORITY:
            raise RuleInvalid(
                f"rule `{self.id}`: priority {self.priority} is not within ±{MAX_RULE_PRIORITY}"
            )
        if (
            len(self.name) > MAX_RULE_NAME_CHARACTERS
            or len(self.description) > MAX_RULE_DESCRIPTION_CHARACTERS
        ):
            raise RuleInvalid(
                f"rule `{self.id}`: at most {MAX_RULE_NAME_CHARACTERS} characters of name and"
                f" {MAX_RULE_DESCRIPTION_CHARACTERS} of description"
            )
        if self.expires_at is not None and not 0 <= self.expires_at < MAX_MOMENT_S:
            raise RuleInvalid(f"rule `{self.id}`: `{self.expires_at}` is no moment it could end at")
        if len(self.tags) > MAX_TAGS or not all(map(_TAG.fullmatch, self.tags)):
            raise RuleInvalid(
                f"rule `{self.id}`: at most {MAX_TAGS} tags, each of 1 to 64 letters, digits or `._:/-`"
            )
        if self.condition:
            parse_condition(self.condition)
        return parse_principal_pattern(self.principal), parse_pattern(self.resource)


class RuleSet:
    """An immutable snapshot of rules, indexed; the cost of a decision does not grow with their number.

    Args:
        rules: any number of rules with different ids.
        epoch: the policy epoch of this snapshot, at least 0.
        mode: what several rules that apply add up to.

    Raises:
        RuleInvalid: an id twice, or a negative epoch.
    """

    __slots__ = ("_by_id", "_index", "epoch", "mode")

    def __init__(
        self,
        rules: Iterable[AclRule] = (),
        epoch: int = 0,
        mode: Combination = Combination.DENY_OVERRIDES,
    ) -> None:
        if epoch < 0:
            raise RuleInvalid(f"a policy epoch is never negative, not {epoch}")
        parts = (PersistentMap[str, AclRule](), RuleIndex.empty())
        for rule in rules:
            parts = _with(*parts, rule)
        self._by_id, self._index = parts
        self.epoch: Final = epoch
        self.mode: Final = mode

    @classmethod
    def _of(cls, parts: _Parts, epoch: int, mode: Combination) -> Self:
        made = cls((), epoch, mode)
        made._by_id, made._index = parts
        return made

    def with_rule(self, rule: AclRule, *, epoch: int | None = None) -> Self:
        """Return a set that also has `rule`.

        Args:
            rule: its id must be new.
            epoch: of the new set; the next one if None.

        Raises:
            RuleInvalid: the id is taken.
        """
        return self._of(_with(self._by_id, self._index, rule), self._next(epoch), self.mode)

    def without_rule(self, rule_id: str, *, epoch: int | None = None) -> Self:
        """Return a set that lacks the rule.

        Raises:
            RuleInvalid: there is no such rule.
        """
        rule = self._by_id.get(rule_id)
        if rule is None:
            raise RuleInvalid(f"there is no rule `{rule_id}`: list the rules to see their ids")
        index = self._index.without_entry(*_compiled(rule)) if rule.enabled else self._index
        return self._of((self._by_id.without(rule_id), index), self._next(epoch), self.mode)

    def with_mode(self, mode: Combination, *, epoch: int | None = None) -> Self:
        """Return a set of the same rules under another combination mode."""
        return self._of((self._by_id, self._index), self._next(epoch), mode)

    def _next(self, epoch: int | None) -> int:
        return self.epoch + 1 if epoch is None else epoch

    @property
    def rules(self) -> tuple[AclRule, ...]:
        """All rules, disabled ones too, ordered by id; linear in their number."""
        return tuple(sorted(self._by_id.values(), key=lambda rule: rule.id))

    @property
    def grants(self) -> tuple[tuple[str, str], ...]:
        """The different (principal pattern, resource pattern) pairs of enabled allow rules, in order.

        What a broker's negative filter is built of; linear in the number of rules.
        """
        return tuple(
            sorted(
                {
                    (rule.principal, rule.resource)
                    for rule in self._by_id.values()
                    if rule.enabled and rule.effect is Effect.ALLOW
                }
            )
        )

    def get(self, rule_id: str) -> AclRule | None:
        """Return the rule of this id."""
        return self._by_id.get(rule_id)

    @property
    def index(self) -> RuleIndex:
        """Where `acl.decide` looks rules up."""
        return self._index

    def __contains__(self, rule_id: str) -> bool:
        return rule_id in self._by_id

    def __len__(self) -> int:
        return len(self._by_id)


_Parts = tuple[PersistentMap[str, AclRule], RuleIndex]


def _with(by_id: PersistentMap[str, AclRule], index: RuleIndex, rule: AclRule) -> _Parts:
    if rule.id in by_id:
        raise RuleInvalid(f"rule `{rule.id}` exists already: delete it first, or use another id")
    changed = index.with_entry(*_compiled(rule)) if rule.enabled else index
    return by_id.with_item(rule.id, rule), changed


def _compiled(rule: AclRule) -> tuple[PrincipalPattern, Entry]:
    principal, pattern = rule.verify()
    denies = rule.effect is not Effect.ALLOW
    order = (
        0 if denies else 1,
        -rule.priority,
        pattern.specificity,
        rank_of(principal.segment),
        rule.id,
    )
    mask = int(rule.operations)
    entry = Entry(
        rule_id=rule.id,
        mask=mask,
        denies=denies,
        order=order,
        pattern=pattern,
        condition=parse_condition(rule.condition) if rule.condition else None,
        expires_at=inf if rule.expires_at is None else rule.expires_at,
        timed=bool(rule.condition) or rule.expires_at is not None,
    )
    return principal, entry
