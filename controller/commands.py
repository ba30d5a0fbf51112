"""The commands of the replicated log, and what comes back: plain structs, encoded as MessagePack.

Rules of this file:
- Everything a command needs is inside it: the time, who asked, new ids. Applying it reads no clock and no random
  number, so every member comes to the same state, and so does a replay in ten years.
- A field is never renamed, renumbered or given another meaning: old entries are read again at every start. New
  fields have defaults.
- `request_id` makes a command exactly-once: a repetition gets the first answer back.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class RuleDraft(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A rule as it is asked for, in a request, a command or the bootstrap policy. Patterns: docs/grammar.md.

    Attributes:
        id: stable name; empty: one is made up.
        principal: principal pattern.
        resource: resource pattern.
        operations: names joined by commas, e.g. `read,write`, or `all`.
        effect: `allow` or `deny`.
        priority: higher is named first among rules of one effect.
        name: for people.
        description: for people.
        enabled: a disabled rule is kept but takes no part in any decision.
        condition: when it applies; empty: always.
        expires_at: second since the epoch from which on it does not apply any more; None: never.
        tags: words to find it by.
    """

    id: str = ""
    principal: str
    resource: str
    operations: str
    effect: str = "allow"
    priority: int = 0
    name: str = ""
    description: str = ""
    enabled: bool = True
    condition: str = ""
    expires_at: float | None = None
    tags: tuple[str, ...] = ()


class RuleRecord(RuleDraft, frozen=True, kw_only=True, omit_defaults=True):
    """A rule as it is kept.

    Attributes:
        created_at: seconds since the epoch, on the clock of the member that took the request.
        created_by: the principal that asked.
        created_epoch: the policy epoch it took effect with.
        changed_at: when it was last replaced; 0 if never.
        changed_by: by whom.
        changed_epoch: the policy epoch of that.
    """

    created_at: float
    created_by: str
    created_epoch: int
    changed_at: float = 0.0
    changed_by: str = ""
    changed_epoch: int = 0


def as_written(rule: RuleDraft) -> RuleDraft:
    """Return of a rule, also of one as it is kept, what its author wrote."""
    return RuleDraft(
        id=rule.id,
        principal=rule.principal,
        resource=rule.resource,
        operations=rule.operations,
        effect=rule.effect,
        priority=rule.priority,
        name=rule.name,
        description=rule.description,
        enabled=rule.enabled,
        condition=rule.condition,
        expires_at=rule.expires_at,
        tags=rule.tags,
    )


class _Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every command carries.

    Attributes:
        request_id: chosen by whoever asks, at most 64 characters; remembered, see `state.MAX_REMEMBERED_REQUESTS`.
        at: seconds since the epoch.
        by: the principal that asked.
    """

    request_id: str
    at: float
    by: str


class Bootstrap(_Command, frozen=True, kw_only=True, tag="bootstrap"):
    """The first policy; changes nothing once there is any."""

    rules: tuple[RuleDraft, ...]
    mode: str = "deny-overrides"


class AddRule(_Command, frozen=True, kw_only=True, tag="add_rule"):
    """Add one rule; `new_id` is its id when the draft names none."""

    rule: RuleDraft
    new_id: str


class SetMode(_Command, frozen=True, kw_only=True, tag="set_mode"):
    """Choose what several rules that apply add up to: one of the texts of `acl.combine.Combination`."""

    mode: str


class DeleteRule(_Command, frozen=True, kw_only=True, tag="delete_rule"):
    """Delete one rule."""

    rule_id: str


class Revise(_Command, frozen=True, kw_only=True, tag="revise"):
    """Change a policy in one step, all of it or nothing.

    Attributes:
        delete: ids of rules.
        put: rules with ids; one that is there already is replaced.
        mode: the combination mode; None: as it is.
        expected_epoch: what the policy must be for this to be done; None: whatever it is.
    """

    delete: tuple[str, ...] = ()
    put: tuple[RuleDraft, ...] = ()
    mode: str | None = None
    expected_epoch: int | None = None


Command = Bootstrap | AddRule | DeleteRule | SetMode | Revise


class Verdict(StrEnum):
    """What became of a command."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    CONFLICT = "conflict"
    NOT_FOUND = "not_found"
    INVALID = "invalid"


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to a command, the same on every member.

    Attributes:
        verdict: what became of it.
        epoch: the policy epoch after it.
        rule_id: the rule concerned.
        detail: why not, or what else there is to know.
        repeated: a repetition of a request that was answered before; this is the first answer.
    """

    verdict: Verdict
    epoch: int
    rule_id: str = ""
    detail: str = ""
    repeated: bool = False


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)


def encode_command(command: Command) -> bytes:
    """Return the bytes that are replicated."""
    return _encoder.encode(command)


def decode_command(data: bytes) -> Command:
    """Return the command in `data`.

    Raises:
        msgspec.MsgspecError: it holds no command this version knows.
    """
    return _decoder.decode(data)
