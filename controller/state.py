"""The replicated state: the rules, the policy epoch, remembered requests and the hash chain. Pure.

Rules of this file:
- `apply` never raises and never changes a part of the state only: first everything is computed, then assigned. An
  entry that raised would stop every member at the same place for ever.
- Deterministic: no clock, no random numbers, no iteration over a set. Equal commands give equal chains; two members
  with the same `applied` and different chains have diverged, and their status shows it.
- The epoch counts the policy changes that took effect, nothing else.

The request table is bounded, oldest out. A request id that is repeated after so many others is taken for a new one;
clients repeat within seconds.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, assert_never

import msgspec
from typing_extensions import override

from acl.combine import Combination
from acl.errors import AclError
from acl.model import Effect, parse_operations, text_of
from acl.rules import AclRule, RuleSet
from controller.commands import (
    AddRule,
    Bootstrap,
    DeleteRule,
    Result,
    Revise,
    RuleDraft,
    RuleRecord,
    SetMode,
    Verdict,
    as_written,
    decode_command,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controller.commands import Command

# Part of the state: changing either needs a new state format. 100,000 rules are 30 MB and a snapshot of 70 ms.
MAX_RULES = 100_000
MAX_REMEMBERED_REQUESTS = 10_000
MAX_REQUEST_ID_CHARACTERS = 64

STATE_FORMAT = 1
_GENESIS = bytes(32)

_encoder = msgspec.msgpack.Encoder()
_record_decoder = msgspec.msgpack.Decoder(RuleRecord)
_result_decoder = msgspec.msgpack.Decoder(Result)


class PolicyChange(NamedTuple):
    """What brokers must know of a command that took effect.

    Attributes:
        epoch: the policy epoch it made.
        grants: new (principal pattern, resource pattern) pairs of allow rules. Grants that ended are not listed: a
            negative filter that still holds them only asks once more.
    """

    epoch: int
    grants: tuple[tuple[str, str], ...]


class Applied(NamedTuple):
    """One applied command: the answer, and the change if there was one."""

    result: Result
    change: PolicyChange | None


class _Image(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int = STATE_FORMAT
    epoch: int
    applied: int
    chain: bytes
    rules: tuple[bytes, ...]
    requests: tuple[tuple[str, bytes, bytes], ...]
    mode: str = Combination.DENY_OVERRIDES.value


_image_decoder = msgspec.msgpack.Decoder(_Image)


def rule_of(draft: RuleDraft) -> AclRule:
    """Return the rule a draft describes.

    Raises:
        AclError: it describes none; says what is wrong.
    """
    if draft.effect not in Effect.__members__.values():
        raise AclError(f"rule `{draft.id}`: effect `{draft.effect}` is neither `allow` nor `deny`")
    return AclRule(
        id=draft.id,
        principal=draft.principal,
        resource=draft.resource,
        operations=parse_operations(draft.operations),
        effect=Effect(draft.effect),
        priority=draft.priority,
        name=draft.name,
        description=draft.description,
        enabled=draft.enabled,
        condition=draft.condition,
        expires_at=draft.expires_at,
        tags=draft.tags,
    )


def mode_of(text: str) -> Combination:
    """Return the combination mode of this name.

    Raises:
        AclError: there is none.
    """
    try:
        return Combination(text)
    except ValueError:
        known = ", ".join(mode.value for mode in Combination)
        raise AclError(f"`{text}` is no combination mode: use one of {known}") from None


def _record_of(draft: RuleDraft, rule: AclRule, command: Command, epoch: int) -> RuleRecord:
    return RuleRecord(
        id=rule.id,
        principal=rule.principal,
        resource=rule.resource,
        operations=text_of(rule.operations),
        effect=rule.effect.value,
        priority=rule.priority,
        name=draft.name,
        description=draft.description,
        enabled=rule.enabled,
        condition=rule.condition,
        expires_at=rule.expires_at,
        tags=rule.tags,
        created_at=command.at,
        created_by=command.by,
        created_epoch=epoch,
    )


def _after(older: RuleRecord | None, record: RuleRecord) -> RuleRecord:
    """The record of a rule that replaces another: it was made when that was."""
    if older is None:
        return record
    return msgspec.structs.replace(
        record,
        created_at=older.created_at,
        created_by=older.created_by,
        created_epoch=older.created_epoch,
        changed_at=record.created_at,
        changed_by=record.created_by,
        changed_epoch=record.created_epoch,
    )


def _grants_of(rules: Iterable[AclRule]) -> tuple[tuple[str, str], ...]:
    return tuple((r.principal, r.resource) for r in rules if r.enabled and r.effect is Effect.ALLOW)


def _fingerprint(command: Command) -> bytes:
    """Identify what a request asks for, apart from what the controller added (time, a made-up id)."""
    match command:
        case Bootstrap():
            asked: object = ("bootstrap", command.by, command.rules, command.mode)
        case AddRule():
            asked = ("add_rule", command.by, command.rule)
        case DeleteRule():
            asked = ("delete_rule", command.by, command.rule_id)
        case SetMode():
            asked = ("set_mode", command.by, command.mode)
        case Revise():
            asked = (
                "revise",
                command.by,
                command.delete,
                command.put,
                command.mode,
                command.expected_epoch,
            )
        case _:
            assert_never(command)
    return hashlib.sha256(_encoder.encode(asked)).digest()


class State:
    """The state machine. One per member; only the log calls `apply` and `restore`."""

    def __init__(self) -> None:
        """Begin empty, at epoch 0."""
        self._rules = RuleSet((), 0)
        self._records: dict[str, bytes] = {}
        self._requests: dict[str, tuple[bytes, bytes]] = {}
        self._applied = 0
        self._chain = _GENESIS

    @property
    def rules(self) -> RuleSet:
        """The rules now, as an immutable snapshot."""
        return self._rules

    @property
    def epoch(self) -> int:
        """The policy epoch."""
        return self._rules.epoch

    @property
    def applied(self) -> int:
        """Commands applied since the beginning of the log."""
        return self._applied

    @property
    def chain(self) -> str:
        """SHA-256 chain over all applied commands, in hexadecimal."""
        return self._chain.hex()

    @property
    def remembered(self) -> int:
        """Requests whose answers are remembered."""
        return len(self._requests)

    def record(self, rule_id: str) -> RuleRecord | None:
        """Return a rule as it is kept."""
        encoded = self._records.get(rule_id)
        return None if encoded is None else _record_decoder.decode(encoded)

    def page(self, *, after: str, limit: int) -> tuple[RuleRecord, ...]:
        """Return up to `limit` rules with ids greater than `after`, ordered by id."""
        chosen = sorted(rule_id for rule_id in self._records if rule_id > after)[:limit]
        return tuple(_record_decoder.decode(self._records[rule_id]) for rule_id in chosen)

    # --- applying ----------------------------------------------------------------------------------------------

    def apply(self, data: bytes) -> Applied:
        """Apply one command. Never raises.

        Returns:
            The answer, and the change of policy if there was one.
        """
        self._applied += 1
        self._chain = hashlib.sha256(self._chain + data).digest()
        try:
            command = decode_command(data)
            known = self._answered(command)
            if known is not None:
                return Applied(known, None)
            applied = self._carry_out(command)
        except AclError as error:
            return Applied(self._answer(Verdict.INVALID, detail=str(error)), None)
        except Exception as error:  # noqa: BLE001 - INVARIANT: an entry never blocks the log; nothing was changed
            return Applied(
                self._answer(Verdict.INVALID, detail=f"error: {type(error).__name__}"), None
            )
        self._remember(command, applied.result)
        return applied

    def _carry_out(self, command: Command) -> Applied:
        match command:
            case Bootstrap():
                return self._bootstrap(command)
            case AddRule():
                return self._add(command)
            case DeleteRule():
                return self._delete(command)
            case SetMode():
                return self._set_mode(command)
            case Revise():
                return self._revise(command)

    def _answered(self, command: Command) -> Result | None:
        if not 0 < len(command.request_id) <= MAX_REQUEST_ID_CHARACTERS:
            return self._answer(
                Verdict.INVALID,
                detail=f"a request id has 1 to {MAX_REQUEST_ID_CHARACTERS} characters",
            )
        remembered = self._requests.get(command.request_id)
        if remembered is None:
            return None
        fingerprint, encoded = remembered
        if fingerprint != _fingerprint(command):
            return self._answer(
                Verdict.CONFLICT,
                detail=f"request id `{command.request_id}` was used for something else",
            )
        return msgspec.structs.replace(_result_decoder.decode(encoded), repeated=True)

    def _remember(self, command: Command, result: Result) -> None:
        self._requests[command.request_id] = (_fingerprint(command), _encoder.encode(result))
        if len(self._requests) > MAX_REMEMBERED_REQUESTS:
            del self._requests[next(iter(self._requests))]

    def _answer(self, verdict: Verdict, *, rule_id: str = "", detail: str = "") -> Result:
        return Result(verdict=verdict, epoch=self.epoch, rule_id=rule_id, detail=detail)

    def _bootstrap(self, command: Bootstrap) -> Applied:
        if self.epoch > 0:
            return Applied(
                self._answer(Verdict.UNCHANGED, detail="there is a policy already"), None
            )
        numbered = [
            draft if draft.id else msgspec.structs.replace(draft, id=f"bootstrap-{number}")
            for number, draft in enumerate(command.rules, 1)
        ]
        if not 0 < len(numbered) <= MAX_RULES:
            return Applied(
                self._answer(Verdict.INVALID, detail=f"a first policy has 1 to {MAX_RULES} rules"),
                None,
            )
        made = [(draft, rule_of(draft)) for draft in numbered]
        rules = RuleSet((rule for _, rule in made), 1, mode_of(command.mode))
        records = {
            rule.id: _encoder.encode(_record_of(draft, rule, command, 1)) for draft, rule in made
        }
        self._rules, self._records = rules, records
        return Applied(self._answer(Verdict.APPLIED), PolicyChange(1, rules.grants))

    def _add(self, command: AddRule) -> Applied:
        draft = command.rule
        if not draft.id:
            draft = msgspec.structs.replace(draft, id=command.new_id)
        if draft.id in self._records:
            result = self._answer(
                Verdict.CONFLICT,
                rule_id=draft.id,
                detail=f"rule `{draft.id}` exists already: delete it first, or use another id",
            )
            return Applied(result, None)
        if len(self._records) >= MAX_RULES:
            return Applied(
                self._answer(
                    Verdict.CONFLICT,
                    detail=f"there are {MAX_RULES} rules already: delete some first",
                ),
                None,
            )
        rule = rule_of(draft)
        epoch = self.epoch + 1
        rules = self._rules.with_rule(rule, epoch=epoch)
        record = _encoder.encode(_record_of(draft, rule, command, epoch))
        self._rules = rules
        self._records[rule.id] = record
        return Applied(
            self._answer(Verdict.APPLIED, rule_id=rule.id), PolicyChange(epoch, _grants_of((rule,)))
        )

    def _delete(self, command: DeleteRule) -> Applied:
        if command.rule_id not in self._records:
            return Applied(
                self._answer(
                    Verdict.NOT_FOUND,
                    rule_id=command.rule_id,
                    detail=f"there is no rule `{command.rule_id}`",
                ),
                None,
            )
        epoch = self.epoch + 1
        self._rules = self._rules.without_rule(command.rule_id, epoch=epoch)
        del self._records[command.rule_id]
        return Applied(
            self._answer(Verdict.APPLIED, rule_id=command.rule_id), PolicyChange(epoch, ())
        )

    def _set_mode(self, command: SetMode) -> Applied:
        mode = mode_of(command.mode)
        if mode is self._rules.mode:
            return Applied(
                self._answer(Verdict.UNCHANGED, detail=f"the mode is `{mode}` already"), None
            )
        self._rules = self._rules.with_mode(mode)
        return Applied(self._answer(Verdict.APPLIED), PolicyChange(self.epoch, ()))

    def _revise(self, command: Revise) -> Applied:
        refusal = self._refusal_of(command)
        if refusal is not None:
            return Applied(refusal, None)
        epoch = self.epoch + 1
        rules = self._rules
        records: dict[str, bytes | None] = {}
        for rule_id in command.delete:
            rules = rules.without_rule(rule_id)
            records[rule_id] = None
        granted: list[AclRule] = []
        for draft in command.put:
            rule, older = rule_of(draft), self.record(draft.id)
            if rule.id in rules:
                rules = rules.without_rule(rule.id)
            rules = rules.with_rule(rule)
            record = _record_of(draft, rule, command, epoch)
            if older is not None and as_written(older) == as_written(record):
                continue
            records[rule.id] = _encoder.encode(_after(older, record))
            granted.append(rule)
        mode = rules.mode if command.mode is None else mode_of(command.mode)
        if not records and mode is self._rules.mode:
            return Applied(self._answer(Verdict.UNCHANGED, detail="the policy is so already"), None)
        self._rules = rules.with_mode(mode, epoch=epoch)
        for rule_id, encoded in records.items():
            if encoded is None:
                del self._records[rule_id]
            else:
                self._records[rule_id] = encoded
        detail = f"{len(granted)} put, {len(command.delete)} deleted"
        return Applied(
            self._answer(Verdict.APPLIED, detail=detail), PolicyChange(epoch, _grants_of(granted))
        )

    def _refusal_of(self, command: Revise) -> Result | None:
        """Why a revision cannot be made; nothing was changed."""
        if command.expected_epoch is not None and command.expected_epoch != self.epoch:
            return self._answer(
                Verdict.CONFLICT,
                detail=f"the policy is at epoch {self.epoch}, not {command.expected_epoch}:"
                " somebody changed it; look at it again",
            )
        unknown = [rule_id for rule_id in command.delete if rule_id not in self._records]
        if unknown:
            return self._answer(
                Verdict.NOT_FOUND, rule_id=unknown[0], detail=f"there is no rule `{unknown[0]}`"
            )
        named = [*command.delete, *(draft.id for draft in command.put)]
        if "" in named:
            return self._answer(Verdict.INVALID, detail="every rule of a revision needs an id")
        twice = [rule_id for rule_id, count in Counter(named).items() if count > 1]
        if twice:
            return self._answer(
                Verdict.INVALID, rule_id=twice[0], detail=f"rule `{twice[0]}` is named twice"
            )
        more = sum(draft.id not in self._records for draft in command.put) - len(command.delete)
        if len(self._records) + more > MAX_RULES:
            return self._answer(
                Verdict.CONFLICT, detail=f"there would be more than {MAX_RULES} rules"
            )
        return None

    # --- snapshots ---------------------------------------------------------------------------------------------

    def dump(self) -> bytes:
        """Return the whole state. Rules are kept encoded, so this is mostly copying: 6 ms for 100,000."""
        image = _Image(
            epoch=self.epoch,
            applied=self._applied,
            chain=self._chain,
            rules=tuple(self._records.values()),
            requests=tuple((key, *value) for key, value in self._requests.items()),
            mode=self._rules.mode.value,
        )
        return _encoder.encode(image)

    def restore(self, data: bytes) -> None:
        """Replace the state by one that `dump` returned.

        Raises:
            ValueError: the bytes are no state of this version; nothing was changed.
        """
        try:
            image = _image_decoder.decode(data)
            if image.format != STATE_FORMAT:
                raise ValueError(f"state format {image.format}, this version knows {STATE_FORMAT}")
            records = {_record_decoder.decode(encoded).id: encoded for encoded in image.rules}
            kept = (rule_of(_record_decoder.decode(r)) for r in image.rules)
            rules = RuleSet(kept, image.epoch, mode_of(image.mode))
        except (msgspec.MsgspecError, AclError) as error:
            raise ValueError(
                f"the state in the snapshot is not readable by this version: {error}"
            ) from error
        self._rules, self._records = rules, records
        self._requests = {key: (print_, answer) for key, print_, answer in image.requests}
        self._applied, self._chain = image.applied, image.chain

    @override
    def __repr__(self) -> str:
        return f"<State epoch={self.epoch} rules={len(self._records)} applied={self._applied} chain={self.chain[:12]}>"
