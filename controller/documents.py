"""The JSON documents of the admin API, for the server and for its client."""

from __future__ import annotations

import msgspec

from controller.brokers import BrokerStatus
from controller.commands import Result, RuleDraft, RuleRecord
from controller.consensus import LogStatus


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    """Fields a client does not know yet are ignored by it, so fields may be added."""


class Problem(_Document, frozen=True, kw_only=True):
    """Why a request failed (RFC 9457).

    Attributes:
        title: the same for every problem of this kind.
        status: HTTP status.
        detail: about this one, and what to do.
        rule_id: the rule that denied it, if one did.
        decision_id: the id of the denial, as in the audit log.
        request_id: repeat with this idempotency key to learn the outcome.
    """

    title: str
    status: int
    detail: str
    rule_id: str | None = None
    decision_id: str = ""
    request_id: str = ""


class RulePage(_Document, frozen=True, kw_only=True):
    """Some rules, ordered by id; `next` is empty on the last page, else the `after` of the next one."""

    epoch: int
    rules: tuple[RuleRecord, ...]
    next: str = ""


class ChangeDocument(_Document, frozen=True, kw_only=True):
    """A write that was applied and is on disk.

    Attributes:
        result: the answer of the log.
        rule: the rule as it is kept; None after a deletion.
        lagging_brokers: brokers that have not confirmed it in time and may still decide by the policy before it.
        request_id: the idempotency key of the write.
    """

    result: Result
    rule: RuleRecord | None = None
    lagging_brokers: tuple[str, ...] = ()
    request_id: str


class AccessQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question to try the policy with; `at`, in seconds since the epoch, is now unless given."""

    principal: str
    operation: str
    resource: str
    at: float | None = None


class DecisionDocument(_Document, frozen=True, kw_only=True):
    """What would be decided.

    Attributes:
        outcome: `allow` or `deny`.
        rule_id: the rule that decides.
        reason: why.
        epoch: of the policy.
        id: of this answer.
        valid_until: second since the epoch after which it may be another without a change of the policy; None: never.
        losing: other rules that apply, in the order in which they take precedence.
        mode: the combination mode by which one of them decides.
    """

    outcome: str
    rule_id: str | None
    reason: str
    epoch: int
    id: str
    valid_until: float | None = None
    losing: tuple[str, ...] = ()
    mode: str = ""


class ModeQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The combination mode to be set."""

    mode: str


class Revision(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A change of the policy in one step, see `controller.commands.Revise`."""

    delete: tuple[str, ...] = ()
    put: tuple[RuleDraft, ...] = ()
    mode: str | None = None
    expected_epoch: int | None = None


class GrantDocument(_Document, frozen=True, kw_only=True):
    """Something that is allowed, see `acl.survey.Grant`."""

    principal: str
    resource: str
    operations: str
    rule_id: str
    unless: tuple[str, ...] = ()


class GrantsDocument(_Document, frozen=True, kw_only=True):
    """Who can, or what can.

    Attributes:
        epoch: of the policy.
        mode: its combination mode.
        grants: what is allowed, at most `MAX_GRANTS` of it.
        more: how many there are beyond these.
    """

    epoch: int
    mode: str
    grants: tuple[GrantDocument, ...]
    more: int = 0


class StatusDocument(_Document, frozen=True, kw_only=True):
    """The state of the controller.

    Attributes:
        version: of Stockade.
        log: the consensus log of this member.
        epoch: policy epoch.
        rules: number of rules.
        mode: what several rules that apply add up to.
        applied: commands applied since the beginning.
        chain: SHA-256 chain over them; members with equal `applied` have equal chains.
        brokers: connected brokers, and those lost a moment ago.
    """

    version: str
    log: LogStatus
    epoch: int
    rules: int
    applied: int
    chain: str
    mode: str = ""
    brokers: tuple[BrokerStatus, ...]
