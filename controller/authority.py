"""The policy as the servers see it: questions are decided here, changes go through the log from here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from acl.combine import Combination
from acl.decide import Decision, Explanation, Outcome, decide, explain
from acl.errors import AclError
from controller.commands import (
    AddRule,
    Bootstrap,
    DeleteRule,
    Result,
    Revise,
    SetMode,
    Verdict,
    encode_command,
)
from controller.wire import Question, verify_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from acl.model import AccessRequest
    from acl.rules import RuleSet
    from controller.brokers import BrokerTable
    from controller.commands import Command, RuleDraft
    from controller.consensus import ConsensusLog
    from controller.documents import Revision
    from controller.state import State

# An administrative write waits this long for the brokers, in seconds; then it names those that lag.
BROKERS_DEADLINE_S = 2.0


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an administrative write.

    Attributes:
        result: the answer of the log; it is on disk.
        laggards: brokers that may still decide by the policy before it.
    """

    result: Result
    laggards: tuple[str, ...]


class PolicyAuthority:
    """Decides by the current rules, and changes them."""

    def __init__(
        self,
        *,
        state: State,
        log: ConsensusLog,
        brokers: BrokerTable,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        brokers_deadline_s: float = BROKERS_DEADLINE_S,
    ) -> None:
        """Put the parts together.

        Args:
            state: the replicated state of this member.
            log: where changes go.
            brokers: who must have applied a change before it is acknowledged.
            clock: seconds since the epoch, put into commands.
            new_id: 12 new random hexadecimal digits.
            brokers_deadline_s: how long a change waits for the brokers.
        """
        self._state = state
        self._log = log
        self._brokers = brokers
        self._clock = clock
        self._new_id = new_id
        self._brokers_deadline_s = brokers_deadline_s

    @property
    def rules(self) -> RuleSet:
        """The rules now, as an immutable snapshot."""
        return self._state.rules

    @property
    def epoch(self) -> int:
        """The policy epoch now."""
        return self._state.epoch

    def decide(self, request: AccessRequest) -> Decision:
        """Decide one request by the rules now. Never raises."""
        decision = decide(self._state.rules, request, self._clock())
        return replace(decision, id=self._decision_id())

    def explain(self, request: AccessRequest, at: float | None = None) -> Explanation:
        """Decide one request by the rules now, and name all that apply. Never raises.

        Args:
            request: what is asked.
            at: seconds since the epoch; None: now.
        """
        found = explain(self._state.rules, request, self._clock() if at is None else at)
        return replace(found, decision=replace(found.decision, id=self._decision_id()))

    def decide_question(self, rules: RuleSet, question: Question) -> Decision:
        """Decide a question of a broker by the given snapshot. Never raises: what cannot be read is denied."""
        try:
            decision = decide(rules, verify_request(question), self._clock())
        except AclError as error:
            decision = Decision(Outcome.DENY, None, f"error in the question: {error}", rules.epoch)
        return replace(decision, id=self._decision_id())

    def _decision_id(self) -> str:
        return f"d-{self._new_id()}"

    async def bootstrap(
        self,
        rules: Iterable[RuleDraft],
        *,
        by: str,
        mode: str = Combination.DENY_OVERRIDES.value,
    ) -> Result:
        """Give an empty state its first policy; changes nothing when there is one.

        Raises:
            NotCommitted, OutcomeUnknown: see `ConsensusLog.submit`.
        """
        command = Bootstrap(
            request_id=self._request_id(), at=self._clock(), by=by, rules=tuple(rules), mode=mode
        )
        return await self._log.submit(encode_command(command))

    async def add_rule(self, draft: RuleDraft, *, by: str, request_id: str = "") -> Change:
        """Add a rule; returns when it is on disk and the brokers have it.

        Args:
            draft: the rule.
            by: the principal that asks.
            request_id: makes a repetition harmless; made up when empty.

        Raises:
            NotCommitted, OutcomeUnknown: see `ConsensusLog.submit`.
        """
        return await self._change(
            AddRule(
                request_id=request_id or self._request_id(),
                at=self._clock(),
                by=by,
                rule=draft,
                new_id=f"r-{self._new_id()}",
            )
        )

    async def delete_rule(self, rule_id: str, *, by: str, request_id: str = "") -> Change:
        """Delete a rule; like `add_rule`."""
        return await self._change(
            DeleteRule(
                request_id=request_id or self._request_id(),
                at=self._clock(),
                by=by,
                rule_id=rule_id,
            )
        )

    async def set_mode(self, mode: str, *, by: str, request_id: str = "") -> Change:
        """Choose the policy's combination mode; like `add_rule`."""
        return await self._change(
            SetMode(request_id=request_id or self._request_id(), at=self._clock(), by=by, mode=mode)
        )

    async def revise(self, revision: Revision, *, by: str, request_id: str = "") -> Change:
        """Change the policy in one step, all of it or nothing; like `add_rule`."""
        return await self._change(
            Revise(
                request_id=request_id or self._request_id(),
                at=self._clock(),
                by=by,
                delete=revision.delete,
                put=revision.put,
                mode=revision.mode,
                expected_epoch=revision.expected_epoch,
            )
        )

    async def _change(self, command: Command) -> Change:
        result = await self._log.submit(encode_command(command))
        if result.verdict is not Verdict.APPLIED:
            return Change(result=result, laggards=())
        laggards = await self._brokers.wait_applied(
            result.epoch, deadline_s=self._brokers_deadline_s
        )
        return Change(result=result, laggards=laggards)

    def _request_id(self) -> str:
        return f"q-{self._new_id()}"
