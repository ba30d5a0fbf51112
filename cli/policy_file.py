"""A policy as a file: read, compared with the one in force, tried, and written.

The file is what a controller's `bootstrap_policy` may name, too: TOML with `mode`, `[[rules]]` and `[[tests]]`.

*Rules of this file*: pure but for reading the file. A rule without an id has none to be compared by, so every rule has one.
A test is decided by the same code as every request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from acl.combine import Combination
from acl.decide import decide
from acl.errors import AclError
from acl.model import AccessRequest, Principal, Resource, parse_operations, text_of
from acl.rules import RuleSet
from certs.settings import SettingsError, load_settings
from cli.toml import render_value
from controller.commands import RuleDraft, as_written
from controller.config import PolicyFile
from controller.documents import Revision
from controller.state import mode_of, rule_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from controller.config import PolicyTest

FIELDS = RuleDraft.__struct_fields__
DEFAULTS: dict[str, object] = {
    "priority": 0,
    "name": "",
    "description": "",
    "enabled": True,
    "condition": "",
    "expires_at": None,
    "tags": (),
}
HEADER = """\
# A policy of Stockade: `stockade acl plan FILE` shows what it would change, `stockade acl apply FILE` makes it so.
# Tests that fail keep it from being applied: [[tests]] with principal, operation, resource and expect.
"""


@dataclass(frozen=True, slots=True)
class RuleChange:
    """A rule that is not as the file has it.

    Attributes:
        before: the rule in force, None if it is new.
        after: the rule of the file, None if it is not there.
    """

    before: RuleDraft | None
    after: RuleDraft | None

    @property
    def id(self) -> str:
        """Which rule."""
        rule = self.after or self.before
        return "" if rule is None else rule.id

    @property
    def fields(self) -> tuple[str, ...]:
        """What differs, of a rule that is in both."""
        if self.before is None or self.after is None:
            return ()
        return tuple(f for f in FIELDS if getattr(self.before, f) != getattr(self.after, f))


@dataclass(frozen=True, slots=True)
class Plan:
    """What applying a file would do.

    Attributes:
        epoch: of the policy it was compared with.
        mode_before: its combination mode.
        mode: that of the file.
        changes: the rules that differ, by id.
        unchanged: how many do not.
    """

    epoch: int
    mode_before: str
    mode: str
    changes: tuple[RuleChange, ...]
    unchanged: int

    @property
    def empty(self) -> bool:
        """Whether the policy in force is that of the file."""
        return not self.changes and self.mode == self.mode_before

    def revision(self) -> Revision:
        """The request that makes it so, if nobody changed anything meanwhile."""
        return Revision(
            delete=tuple(each.id for each in self.changes if each.after is None),
            put=tuple(each.after for each in self.changes if each.after is not None),
            mode=self.mode if self.mode != self.mode_before else None,
            expected_epoch=self.epoch,
        )


def load_policy(path: Path) -> PolicyFile:
    """Read a policy file.

    Raises:
        SettingsError: it cannot be read, a rule is wrong, has no id or one that is there twice, or the mode is unknown.
    """
    policy = load_settings(path, PolicyFile)
    seen: set[str] = set()
    try:
        mode_of(policy.mode)
        for number, draft in enumerate(policy.rules, 1):
            if not draft.id or draft.id in seen:
                what = f"id `{draft.id}` is there twice" if draft.id else "it needs an `id`"
                raise SettingsError(f"`{path}`: rule {number}: {what}")
            seen.add(draft.id)
            rule_of(draft)
        for number, test in enumerate(policy.tests, 1):
            _request_of(test, number)
    except AclError as error:
        raise SettingsError(f"`{path}`: {error}") from error
    return policy


def plan_of(
    policy: PolicyFile, current: Iterable[RuleDraft], *, mode: str, epoch: int, keep: bool
) -> Plan:
    """Compare a file with the rules in force.

    Args:
        policy: the file.
        current: the rules in force.
        mode: their combination mode.
        epoch: at which they were read.
        keep: leave rules alone that the file does not have.
    """
    wanted = {draft.id: _normal(draft) for draft in policy.rules}
    there = {record.id: _normal(record) for record in current}
    changes = [
        RuleChange(there.get(rule_id), draft)
        for rule_id, draft in wanted.items()
        if there.get(rule_id) != draft
    ]
    gone = [] if keep else [RuleChange(there[rule_id], None) for rule_id in there.keys() - wanted]
    return Plan(
        epoch=epoch,
        mode_before=mode,
        mode=policy.mode,
        changes=tuple(sorted([*changes, *gone], key=lambda each: each.id)),
        unchanged=len(wanted) - len(changes),
    )


def _normal(rule: RuleDraft) -> RuleDraft:
    """A rule as its author wrote it, with its operations in the one order they are kept in."""
    operations = text_of(parse_operations(rule.operations))
    return msgspec.structs.replace(as_written(rule), operations=operations)


def failures_of(
    policy: PolicyFile, plan: Plan, current: Iterable[RuleDraft], *, now: float
) -> list[str]:
    """Run the file's tests against the policy as it would be.

    Args:
        policy: the file.
        plan: of that file.
        current: the rules in force, with which it was made.
        now: seconds since the epoch.

    Returns:
        a sentence for each test that fails.
    """
    after = {record.id: record for record in current}
    for change in plan.changes:
        if change.after is None:
            del after[change.id]
        else:
            after[change.id] = change.after
    rules = RuleSet(map(rule_of, after.values()), mode=Combination(plan.mode))
    found: list[str] = []
    for number, test in enumerate(policy.tests, 1):
        decision = decide(
            rules, _request_of(test, number), now if test.at is None else test.at.timestamp()
        )
        rule = decision.rule_id or ""
        if decision.outcome.value != test.expect or (test.rule and test.rule != rule):
            wanted = test.expect + (f" by `{test.rule}`" if test.rule else "")
            got = decision.outcome.value + (f" by `{rule}`" if rule else "")
            found.append(
                f"test {number}: {test.principal} {test.operation} {test.resource}:"
                f" {wanted} was expected, {got} is what it would be"
            )
    return found


def _request_of(test: PolicyTest, number: int) -> AccessRequest:
    try:
        return AccessRequest(
            Principal(test.principal),
            parse_operations(test.operation),
            Resource.parse(test.resource),
        )
    except AclError as error:
        raise AclError(f"test {number}: {error}") from error


def rules_of(policy: PolicyFile) -> RuleSet:
    """The rules of a file that `load_policy` has read."""
    return RuleSet(map(rule_of, policy.rules), mode=mode_of(policy.mode))


def render_rules(rules: Sequence[RuleDraft], mode: str) -> str:
    """The policy file of rules in force."""
    blocks = [HEADER, f"\nmode = {render_value(mode)}\n"]
    for rule in rules:
        shown = {field: getattr(rule, field) for field in FIELDS}
        lines = [
            f"{field} = {render_value(value)}"
            for field, value in shown.items()
            if field not in DEFAULTS or DEFAULTS[field] != value
        ]
        blocks.append("\n[[rules]]\n" + "\n".join(lines) + "\n")
    return "".join(blocks)


def sentences(plan: Plan) -> list[str]:
    """What a plan does, a line a change."""
    lines: list[str] = []
    if plan.mode != plan.mode_before:
        lines.append(f"~ mode: {plan.mode_before} -> {plan.mode}")
    for change in plan.changes:
        if change.before is None and change.after is not None:
            lines.append(f"+ {change.id}: {_told(change.after)}")
        elif change.after is None and change.before is not None:
            lines.append(f"- {change.id}: {_told(change.before)}")
        else:
            differs = ", ".join(
                f"{field}: {_shown(change.before, field)} -> {_shown(change.after, field)}"
                for field in change.fields
            )
            lines.append(f"~ {change.id}: {differs}")
    return lines


def _told(rule: RuleDraft) -> str:
    state = "" if rule.enabled else " (disabled)"
    return f"{rule.effect} {rule.principal} {rule.operations} {rule.resource}{state}"


def _shown(rule: RuleDraft | None, field: str) -> str:
    return msgspec.json.encode(getattr(rule, field)).decode()
