"""What an audit event says: who wanted what, what came of it, by which rule and under which policy.

Text in an event may come from a peer (a topic, a certificate's subject), so every field is cut to a
bound here; the JSON encoding takes care of quotes and control characters.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

MAX_FIELD_CHARS = 512
"""Longest text of one field. An MQTT topic may have 65,535 bytes (section 1.5.4); 512 tell which."""

MAX_DETAILS = 16
"""Most entries of `details`: an event describes one act, it is no container."""

_CUT_MARK = "…"


class AuditOutcome(StrEnum):
    """What came of the act."""

    ALLOW = "allow"
    DENY = "deny"
    ERROR = "error"


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One denial or one administrative act. Never holds a payload or a secret.

    Attributes:
        kind: what happened, dotted, e.g. `authorization.denied`, `acl.rule_added`.
        principal: the authenticated name; empty when there is none (a failed handshake).
        action: the operation, e.g. `write`.
        resource: the resource's text form, e.g. `topic.telemetry.cpu`.
        outcome: allow, deny or error.
        reason: why, for a human.
        decision_id: the decision's id, as given to the client.
        rule_id: the rule that decided; empty for the default deny.
        epoch: the policy epoch of the decision.
        peer: the peer's address.
        count: how many identical acts this event stands for (a run, a merged burst), >= 1.
        details: further facts as text.
    """

    kind: str
    principal: str = ""
    action: str = ""
    resource: str = ""
    outcome: AuditOutcome = AuditOutcome.DENY
    reason: str = ""
    decision_id: str = ""
    rule_id: str = ""
    epoch: int = 0
    peer: str = ""
    count: int = 1
    details: dict[str, str] = msgspec.field(default_factory=dict[str, str])


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An event with its place in the log: one line of the file.

    Attributes:
        sequence: consecutive from 1; a gap means that an event was lost (and it was counted).
        time: RFC 3339 in UTC, microseconds.
        event: the event itself.
    """

    sequence: int
    time: str
    event: AuditEvent


def bounded(event: AuditEvent) -> AuditEvent:
    """Return `event` with every text cut to `MAX_FIELD_CHARS` and encodable as UTF-8."""
    return msgspec.structs.replace(
        event,
        kind=_cut(event.kind),
        principal=_cut(event.principal),
        action=_cut(event.action),
        resource=_cut(event.resource),
        reason=_cut(event.reason),
        decision_id=_cut(event.decision_id),
        rule_id=_cut(event.rule_id),
        peer=_cut(event.peer),
        details={_cut(k): _cut(v) for k, v in list(event.details.items())[:MAX_DETAILS]},
    )


def _cut(text: str) -> str:
    if len(text) > MAX_FIELD_CHARS:
        text = text[: MAX_FIELD_CHARS - len(_CUT_MARK)] + _CUT_MARK
    # A lone surrogate (from a decoder with `surrogateescape`) would make the encoder raise.
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
