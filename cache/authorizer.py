"""The way of one question: L1, L2, L3, and the authority for what none of them knows.

Rules of this file:
- Nothing is allowed that the authority did not allow under the applied policy epoch, or a later one.
- An answer of an older epoch is neither kept nor used: the question is asked again, a few times, then
  denied. An answer of a later epoch is used for whoever asked and not kept, because the change it
  knows of has not flushed this broker yet.
- Before the first policy, and from a loss of contact until it is restored, everything is denied.
- What changes the policy here is synchronous: no task sees half of it.
- Decisions that end by themselves are looked up as fast as others: when the first of them ends, every L1 is emptied, as by
  a change of policy. How late that is at most is `CLOCK_LOOK_S`, if the clock is set forward, else a turn of the loop.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

import trio

from acl.decide import Decision, Outcome
from acl.errors import AclError, NameInvalid
from acl.model import AccessRequest, Operation, Principal, Resource
from cache.connection import ConnectionCache
from cache.decisions import DecisionStore, PrincipalTable
from cache.errors import PrincipalMismatch
from cache.flights import Failure, Flights
from cache.negative import GrantFilter
from cache.stats import CacheSizes, CacheStats

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.authority import Authority
    from cache.decisions import Question
    from cache.limits import CacheLimits

_KERNEL_LEVEL: Final = b"kernel/"
_PUBLISH: Final = Operation.WRITE  # looking a member up costs more than comparing it
_WRITE: Final = int(Operation.WRITE)
_READ: Final = int(Operation.READ)
CLOCK_LOOK_S: Final = 1.0
"""Seconds between two looks at the clock while a decision waits for its end: it may be set."""

_NO_POLICY: Final = "no policy was applied yet"


def request_for(principal: Principal, operation: Operation, topic: bytes) -> AccessRequest:
    """Return what an MQTT operation on a topic asks for; the one place that says so.

    Publishing to `kernel/NAME` calls a kernel: EXECUTE on `kernel.NAME`. Everything else is what it
    looks like; for READ the topic may be a filter.

    Args:
        principal: who.
        operation: WRITE to publish, READ to receive or subscribe.
        topic: topic name or filter in UTF-8, as on the wire.

    Raises:
        AclError: the topic cannot be the name of a resource.
    """
    try:
        name = topic.decode()
    except UnicodeDecodeError:
        raise NameInvalid("a topic is not UTF-8") from None
    if operation is _PUBLISH and topic.startswith(_KERNEL_LEVEL):
        kernel = name[len(_KERNEL_LEVEL) :]
        if kernel and "/" not in kernel:
            return AccessRequest(principal, Operation.EXECUTE, Resource.kernel(kernel))
    return AccessRequest(principal, operation, Resource.topic(name))


class Authorizer:
    """All levels together, for all connections of one broker.

    Args:
        authority: who decides what is not known here.
        limits: every bound.
        clock: Unix time in seconds, for decisions that end by themselves.
        new_id: returns `d-` and 12 hexadecimal digits, a new one each time.

    *Resource handling*: `run` must be running for `authorize` to get answers; without it questions end
    denied after their deadline.
    """

    def __init__(
        self,
        authority: Authority,
        *,
        limits: CacheLimits,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self.stats: Final = CacheStats()
        self._limits = limits
        self._clock = clock
        self._new_id = new_id
        self._store = DecisionStore(limits)
        self._flights = Flights(authority, limits, self.stats, new_id)
        self._connections: dict[ConnectionCache, None] = {}
        self._filter: GrantFilter | None = None
        self._serial = 0  # of policy changes: what L2 tables and plans for the filter belong to
        self._epoch = -1
        self._withdrawn: str | None = None
        self._refusal: Decision | None = self._deny(_NO_POLICY, answered=False)
        self._ends_at = inf  # the first end of a decision in any L1
        self._end_changed = trio.Event()
        self._watching = False
        self._on_end: Callable[[], None] = lambda: None

    def attach(self, on_end: Callable[[], None]) -> None:
        """Have somebody told, in the same step, when decisions have ended and every L1 is empty."""
        self._on_end = on_end

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Put questions to the authority until cancelled; waiting ones are then denied."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_decisions)
            await self._flights.run(task_status)

    async def _end_decisions(self) -> None:
        """Empty every L1 when the first of its decisions ends by itself."""
        self._watching = True
        try:
            while True:
                changed = self._end_changed = trio.Event()
                left_s = self._ends_at - self._clock()
                if left_s <= 0:
                    self._ends_at = inf
                    self._reconsider()
                    self._on_end()
                    continue
                with trio.move_on_after(inf if left_s == inf else min(left_s, CLOCK_LOOK_S)):
                    await changed.wait()
        finally:
            self._watching = False

    def _remember(
        self, connection: ConnectionCache, operation: Operation, topic: bytes, decision: Decision
    ) -> None:
        """Put a decision into L1, if somebody is there to see to its end."""
        if decision.valid_until != inf:
            if not self._watching or decision.valid_until <= self._clock():
                return
            if decision.valid_until < self._ends_at:
                self._ends_at = decision.valid_until
                self._end_changed.set()
        connection.put(operation, topic, decision)

    # -- connections -------------------------------------------------------------------------

    def open(self, principal: Principal) -> ConnectionCache:
        """Return the caches of a new connection; `close` them with it."""
        table = self._store.table(principal)
        connection = ConnectionCache(table, self._limits, self.stats, self._forget)
        self._connections[connection] = None
        return connection

    def _forget(self, connection: ConnectionCache) -> None:
        self._connections.pop(connection, None)

    # -- policy ------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The applied policy epoch, -1 before the first."""
        return self._epoch

    @property
    def refusal(self) -> str | None:
        """Why everything is denied at the moment, or None."""
        return None if self._refusal is None else self._refusal.reason

    def apply_policy(
        self, epoch: int, grants: Sequence[tuple[str, str]] | None, *, reset: bool
    ) -> bool:
        """Take over a policy change; when this returns, no older answer is left in any cache.

        Args:
            epoch: of the policy after the change. A change without `reset` must follow the applied epoch
                directly, or repeat it; after a gap the negative filter is suspended until a reset.
            grants: (principal pattern, resource pattern) texts of enabled allow rules: all of them with
                `reset`, else those added; None if unknown (with `reset`) or none.
            reset: whether `grants` replaces what was there.

        Returns:
            False if the epoch is older than the applied one: epochs never go back, nothing was changed.
        """
        if epoch < self._epoch:
            self.stats.policies_refused += 1
            return False
        self._filter = self._next_filter(epoch, grants, reset=reset)
        self._epoch = epoch
        self._serial += 1
        self.stats.policies += 1
        self._reconsider()
        return True

    def _next_filter(
        self, epoch: int, grants: Sequence[tuple[str, str]] | None, *, reset: bool
    ) -> GrantFilter | None:
        """Return the filter for the new policy; None answers "maybe" to all, which is always right."""
        try:
            if reset:
                most = self._limits.max_grants
                return None if grants is None else GrantFilter(grants, max_grants=most)
            current = self._filter
            if current is None:
                return None
            if epoch > self._epoch + 1:
                self.stats.policy_gaps += 1
                return None
            for principal, resource in grants or ():
                current.add(principal, resource)
        except AclError:
            self.stats.policy_gaps += 1  # a grant that cannot be read cannot be ruled out either
            return None
        return current

    def withdraw(self, reason: str) -> None:
        """Deny everything from now on, waiting questions too: the authority is out of reach.

        Args:
            reason: for the audit.
        """
        self._withdrawn = reason
        self._reconsider()
        self._flights.fail_all(reason)

    def restore(self) -> None:
        """Be in contact again; what the caches hold of the applied epoch is valid as before."""
        if self._withdrawn is not None:
            self._withdrawn = None
            self._reconsider()

    def _reconsider(self) -> None:
        """Follow a change of policy or contact: name the refusal if there is one, flush every L1."""
        reason = self._withdrawn
        if reason is None and self._epoch < 0:
            reason = _NO_POLICY
        self._refusal = None if reason is None else self._deny(reason, answered=False)
        for connection in self._connections:
            connection.flush()
        self.stats.flushes += len(self._connections)

    # -- questions ---------------------------------------------------------------------------

    def check(
        self, connection: ConnectionCache, operation: Operation, topic: bytes
    ) -> Decision | None:
        """Answer from what is known here, without waiting.

        Args:
            connection: whose question.
            operation: WRITE or READ.
            topic: topic name, or for READ a filter, in UTF-8.

        Returns:
            The decision, or None when the authority must be asked (`authorize`).
        """
        decision = (connection.writes if operation is _PUBLISH else connection.reads).get(topic)
        if decision is None or (decision.valid_until != inf and self._ended(decision)):
            return self._check_further(connection, operation, topic)
        self.stats.count_l1(decision)
        return decision

    def _ended(self, decision: Decision) -> bool:
        return decision.valid_until <= self._clock()

    def _check_further(
        self, connection: ConnectionCache, operation: Operation, topic: bytes
    ) -> Decision | None:
        """Do the same for what is not among the young of L1."""
        decision = connection.recall(operation, topic)
        if decision is not None and not self._ended(decision):
            self.stats.count_l1(decision)
            return decision
        decision = self._refusal
        if decision is not None:
            self.stats.local_deny += 1
        else:
            question = (_WRITE if operation is _PUBLISH else _READ, topic)
            decision = self._recall(connection, question)
            if decision is None:
                decision = self._rule_out(connection, operation, topic, question)
        if decision is not None:
            self._remember(connection, operation, topic, decision)
        return decision

    def _rule_out(
        self, connection: ConnectionCache, operation: Operation, topic: bytes, question: Question
    ) -> Decision | None:
        try:
            request = request_for(connection.principal, operation, topic)
        except AclError as error:
            self.stats.local_deny += 1
            return self._deny(f"error in the topic: {error}")
        return self._negative(connection, request, question)

    def _recall(self, connection: ConnectionCache, question: Question) -> Decision | None:
        """L2; the table of a principal that was evicted from it is empty."""
        decision = connection.table.get(question, self._serial, self._clock)
        if decision is not None:
            self.stats.count_l2(decision)
        return decision

    def _table(self, connection: ConnectionCache) -> PrincipalTable:
        if connection.table.evicted:
            connection.table = self._store.table(connection.principal)
        return connection.table

    def _negative(
        self, connection: ConnectionCache, request: AccessRequest, question: Question
    ) -> Decision | None:
        """L3."""
        grants = self._filter
        if grants is None:
            return None
        table = self._table(connection)
        if table.plan is None or table.plan_serial != self._serial:
            table.plan, table.plan_serial = grants.plan(request.principal), self._serial
        if grants.maybe_planned(table.plan, request.resource):
            return None
        self.stats.l3_deny += 1
        decision = self._deny("nothing that was ever granted matches (negative filter)")
        self._keep(table, question, decision)
        return decision

    def _keep(self, table: PrincipalTable, question: Question, decision: Decision) -> None:
        self._store.put(table, question, decision, serial=self._serial)
        self.stats.l2_evictions = self._store.evictions

    async def authorize(
        self, connection: ConnectionCache, operation: Operation, topic: bytes
    ) -> Decision:
        """Answer from all levels; a denial with its reason when there is no answer in time.

        Args: as for `check`. Call that first where a checkpoint is too dear: this always has one.
        """
        await trio.lowlevel.checkpoint()
        decision = self.check(connection, operation, topic)
        if decision is not None:
            return decision
        question = (_WRITE if operation is _PUBLISH else _READ, topic)
        request = request_for(connection.principal, operation, topic)
        decision, keep = await self._ask(connection, request, question)
        if keep:
            self._remember(connection, operation, topic, decision)
        return decision

    async def authorize_request(
        self, connection: ConnectionCache, request: AccessRequest
    ) -> Decision:
        """Answer any request of the connection's principal, from L2, L3 and the authority.

        Raises:
            PrincipalMismatch: the request is somebody else's.
        """
        await trio.lowlevel.checkpoint()
        if request.principal != connection.principal:
            raise PrincipalMismatch(
                f"a request of `{request.principal.name}` on the connection of"
                f" `{connection.principal.name}`"
            )
        if self._refusal is not None:
            self.stats.local_deny += 1
            return self._refusal
        question = (int(request.operation), request.resource)
        decision = self._recall(connection, question)
        if decision is None:
            decision = self._negative(connection, request, question)
        if decision is None:
            decision, _ = await self._ask(connection, request, question)
        return decision

    async def _ask(
        self, connection: ConnectionCache, request: AccessRequest, question: Question
    ) -> tuple[Decision, bool]:
        """Ask the authority until it answers by the applied epoch; also say whether L1 may keep it."""
        with trio.move_on_after(self._limits.question_deadline_s):
            for _ in range(self._limits.max_asks):
                settled = self._settle(connection, question, await self._flights.ask(request))
                if settled is not None:
                    return settled
            return self._failed(
                f"the controller answered {self._limits.max_asks} times by an older policy"
                f" than epoch {self._epoch}, which this broker has applied"
            )
        self.stats.timeouts += 1
        return self._failed(
            f"no answer from the controller within {self._limits.question_deadline_s:g} seconds"
        )

    def _settle(
        self, connection: ConnectionCache, question: Question, result: Decision | Failure
    ) -> tuple[Decision, bool] | None:
        """Judge what came back, in the state of now; None: ask again."""
        if self._refusal is not None:
            self.stats.local_deny += 1
            return self._refusal, False
        if isinstance(result, Failure):
            return self._failed(result.reason)
        if result.epoch < self._epoch:
            self.stats.stale_answers += 1
            return None
        self.stats.count_authority(result)
        if result.epoch > self._epoch:
            self.stats.early_answers += 1
            return result, False
        self._keep(self._table(connection), question, result)
        return result, True

    def _failed(self, reason: str) -> tuple[Decision, bool]:
        self.stats.local_deny += 1
        return self._deny(reason, answered=False), False

    def denial(self, reason: str) -> Decision:
        """Return a denial that no rule can lift, with an id for the audit: what the caller forbids by itself."""
        self.stats.local_deny += 1
        return self._deny(reason)

    def _deny(self, reason: str, *, answered: bool = True) -> Decision:
        epoch = max(self._epoch, 0)
        return Decision(Outcome.DENY, None, reason, epoch, id=self._new_id(), answered=answered)

    def sizes(self) -> CacheSizes:
        """Return what the caches hold; linear in it, for metrics."""
        principals, entries, counted = self._store.sizes()
        grants = None if self._filter is None else self._filter.stats
        return CacheSizes(
            connections=len(self._connections),
            l1_entries=sum(map(len, self._connections)),
            l2_principals=principals,
            l2_entries=entries,
            l2_bytes=counted,
            l3_grants=0 if grants is None else grants.grants,
            l3_bytes=0 if grants is None else grants.size_bytes,
            waiting_questions=len(self._flights),
        )
