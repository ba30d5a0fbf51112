"""The choke point: every question of the broker to the policy passes here, and every denial is told.

*Rules of this file*: an answer is a `Decision`; what is denied is written to the audit log before
the caller sees it; nothing is allowed while the broker has had no contact with the controller for
`stale_after_s`. The levels themselves (L1, L2, L3, misses) are `cache.authorizer`'s.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog
import trio

from acl.errors import AclError
from acl.model import AccessRequest, Operation, Resource, ResourceKind
from broker.routes import Readers
from cache.authorizer import request_for
from governance.events import AuditEvent, AuditOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from acl.decide import Decision
    from acl.model import Principal
    from broker.router import Router
    from broker.session import Session
    from broker.waiting import QueuePolicy
    from cache.authorizer import Authorizer
    from cache.connection import ConnectionCache
    from controller.link import PolicyUpdate
    from governance.audit import AuditLog

log = structlog.get_logger("stockade.broker.guard")


class Asker(Protocol):
    """A session or an HTTP connection, as far as the policy is concerned."""

    @property
    def principal(self) -> Principal:
        """Who it is."""
        ...

    @property
    def cache(self) -> ConnectionCache:
        """Its L1."""
        ...

    @property
    def peer(self) -> str:
        """Its address, for the audit log."""
        ...


@dataclass(frozen=True, slots=True)
class AbsentAsker:
    """Somebody who is not connected, or need not be any more."""

    principal: Principal
    cache: ConnectionCache
    peer: str = ""


class Guard:
    """Weighs what clients ask for, tells the audit log what was denied."""

    def __init__(
        self,
        authorizer: Authorizer,
        audit: AuditLog,
        *,
        broker_id: str,
        stale_after_s: float,
    ) -> None:
        """Nothing is allowed until the first policy arrives.

        Args:
            authorizer: the cache levels.
            audit: where denials go.
            broker_id: names this broker's own resources.
            stale_after_s: seconds after the last proof that the policy is true, after which everything
                is denied.
        """
        self.authorizer = authorizer
        self._audit = audit
        self._broker_id = broker_id
        self._stale_after_s = stale_after_s
        self._contact = False
        self._contact_changed = trio.Event()
        self._router: Router | None = None
        self._waiting: QueuePolicy | None = None
        self.has_policy = False
        authorizer.attach(self._forget_routes)
        authorizer.withdraw("no policy has arrived from the controller yet")

    @property
    def contact(self) -> bool:
        """Whether the controller is reachable."""
        return self._contact

    @property
    def refusal(self) -> str:
        """Why everything is denied now; empty when it is not."""
        return self.authorizer.refusal or ""

    def attach(self, router: Router, waiting: QueuePolicy | None = None) -> None:
        """Tell the guard whose routes die with a policy change, and who weighs anew what waits in queues."""
        self._router = router
        self._waiting = waiting

    @property
    def policy_changes(self) -> int:
        """How often the policy, or contact with who knows it, changed."""
        return 0 if self._router is None else self._router.policy_changes

    # ---- what the controller link tells ------------------------------------------------------

    def on_policy(self, update: PolicyUpdate) -> None:
        """Take over a policy change in one step: filter, epoch, caches, routes."""
        self.authorizer.apply_policy(update.epoch, update.grants, reset=update.reset)
        self.has_policy = True
        if self._contact:
            self.authorizer.restore()
        self._forget_routes()

    def on_contact(self, contact: bool, reason: str) -> None:  # noqa: FBT001  a callback's one fact
        """Note that the controller is reachable or not."""
        if contact != self._contact:
            log.info("controller contact", contact=contact, reason=reason)
        self._contact = contact
        self._contact_changed.set()
        if contact and self.has_policy:
            self.authorizer.restore()
            self._forget_routes()

    async def watch_contact(self, proved_at: Callable[[], float] = trio.current_time) -> None:
        """Deny everything once the controller has been silent for too long. Runs for ever.

        Args:
            proved_at: when the policy was last proved to be true. Counted from there and not from when
                the loss is noticed: a process that was stopped for an hour notices it an hour late.
        """
        began = trio.current_time()
        while True:
            changed = self._contact_changed = trio.Event()
            if self._contact:
                await changed.wait()
                continue
            with trio.move_on_at(max(began, proved_at()) + self._stale_after_s) as deadline:
                await changed.wait()
            if deadline.cancelled_caught and not self._contact:
                reason = f"no contact with the controller for {self._stale_after_s:g} s"
                log.warning("failing closed", reason=reason)
                self.authorizer.withdraw(reason)
                self._forget_routes()
                await changed.wait()

    def _forget_routes(self) -> None:
        if self._router is not None:
            self._router.forget_routes()
        if self._waiting is not None:
            self._waiting.policy_changed()

    # ---- what sessions ask -------------------------------------------------------------------

    async def may_connect(self, asker: Asker) -> Decision:
        """CONNECT on this broker."""
        request = AccessRequest(
            principal=asker.principal,
            operation=Operation.CONNECT,
            resource=Resource(ResourceKind.BROKER, (self._broker_id,)),
        )
        return await self._weigh(asker, request, "connect")

    async def may_observe(self, asker: Asker) -> Decision:
        """DESCRIBE on this broker's metrics."""
        request = AccessRequest(
            principal=asker.principal,
            operation=Operation.DESCRIBE,
            resource=Resource(ResourceKind.BROKER, (self._broker_id, "metrics")),
        )
        return await self._weigh(asker, request, "describe")

    async def may_subscribe(self, asker: Asker, filter_: str) -> Decision:
        """READ of something inside a topic filter; each delivery is weighed again.

        Raises:
            NameInvalid: the filter has more levels than a resource may have.
        """
        resource = Resource.topic(filter_)
        decision = await self.authorizer.authorize(asker.cache, Operation.READ, filter_.encode())
        if not decision.allowed:
            self.denied(asker, "subscribe", resource.text, decision)
        return decision

    async def foresee(self, asker: Asker, filters: Sequence[str]) -> None:
        """Ask together what is not known of these topic filters, so that `may_subscribe` need not ask one by one.

        Args:
            asker: the subscribing session.
            filters: valid ones, some dozens.
        """
        await trio.lowlevel.checkpoint()
        check, authorize = self.authorizer.check, self.authorizer.authorize
        topics = [each.encode() for each in dict.fromkeys(filters)]
        async with trio.open_nursery() as nursery:
            for topic in topics:
                if check(asker.cache, Operation.READ, topic) is None:
                    nursery.start_soon(authorize, asker.cache, Operation.READ, topic)

    async def may_publish(self, asker: Asker, topic: bytes, *, count: int = 1) -> Decision:
        """WRITE to a topic, or EXECUTE of a kernel when the topic is `kernel/NAME`.

        Args:
            asker: the publishing session.
            topic: a valid topic name.
            count: messages the decision is for; told to the audit log.
        """
        decision = asker.cache.writes.get(topic)
        if decision is None:
            decision = await self.authorizer.authorize(asker.cache, Operation.WRITE, topic)
        else:
            asker.cache.count_hits(count, allowed=decision.allowed)
        if not decision.allowed:
            self.denied_topic(asker, Operation.WRITE, topic, decision, count=count)
        return decision

    async def may_publish_absent(
        self, questions: Sequence[tuple[Principal, bytes]]
    ) -> list[Decision]:
        """WRITE to topics by principals that may have left; all that is not known is asked together.

        Returns:
            A decision for each; one without an answer is not audited, because it is no verdict.
        """
        with ExitStack() as stack:
            askers: dict[Principal, AbsentAsker] = {}
            for principal, _ in questions:
                if principal not in askers:
                    cache = stack.enter_context(closing(self.authorizer.open(principal)))
                    askers[principal] = AbsentAsker(principal, cache)
            verdicts: dict[tuple[Principal, bytes], Decision] = {}

            async def weigh(principal: Principal, topic: bytes) -> None:
                cache = askers[principal].cache
                decision = await self.authorizer.authorize(cache, Operation.WRITE, topic)
                verdicts[principal, topic] = decision

            async with trio.open_nursery() as nursery:
                for question in dict.fromkeys(questions):
                    nursery.start_soon(weigh, *question)
            for principal, topic in questions:
                decision = verdicts[principal, topic]
                if decision.answered and not decision.allowed:
                    self.denied_topic(askers[principal], Operation.WRITE, topic, decision)
            return [verdicts[question] for question in questions]

    def forbid_publish(self, asker: Asker, topic: bytes, reason: str) -> Decision:
        """Deny to publish what no rule can allow, and tell the audit log."""
        decision = self.authorizer.denial(reason)
        self.denied_topic(asker, Operation.WRITE, topic, decision)
        return decision

    def knows_reader(self, session: Session, topic: bytes) -> Decision | None:
        """READ of one topic by one session, where that is known here; None: `may_receive` must be asked."""
        decision = self.authorizer.check(session.cache, Operation.READ, topic)
        if decision is not None and not decision.allowed:
            self.denied_topic(session, Operation.READ, topic, decision)
        return decision

    async def may_receive(self, session: Session, topic: bytes) -> Decision:
        """READ of one topic by one session."""
        decision = await self.authorizer.authorize(session.cache, Operation.READ, topic)
        if not decision.allowed:
            self.denied_topic(session, Operation.READ, topic, decision)
        return decision

    async def may_read(self, sessions: Sequence[Session], topic: bytes) -> Readers:
        """Those sessions that may read `topic` now; all misses are asked together."""
        verdicts: dict[Session, Decision] = {}
        misses: dict[Principal, list[Session]] = {}
        for session in sessions:
            decision = self.authorizer.check(session.cache, Operation.READ, topic)
            if decision is None:
                misses.setdefault(session.principal, []).append(session)
            else:
                verdicts[session] = decision

        async def weigh(alike: Sequence[Session]) -> None:
            """Ask once for all sessions of a principal: the answer depends on nothing else."""
            first, *others = alike
            answer = await self.authorizer.authorize(first.cache, Operation.READ, topic)
            verdicts[first] = answer
            for session in others:
                decision = self.authorizer.check(session.cache, Operation.READ, topic)
                verdicts[session] = answer if decision is None else decision

        if misses:
            async with trio.open_nursery() as nursery:
                for alike in misses.values():
                    nursery.start_soon(weigh, alike)
        for session in sessions:
            if not verdicts[session].allowed:
                self.denied_topic(session, Operation.READ, topic, verdicts[session])
        return Readers(
            allowed=tuple(s for s in sessions if verdicts[s].allowed),
            undecided=tuple(s for s in sessions if not verdicts[s].answered),
            # L1 keeps just what is true until it is emptied: no denial for want of an answer.
            lasting=all(s.cache.reads.get(topic) is verdicts[s] for s in sessions),
        )

    async def _weigh(self, asker: Asker, request: AccessRequest, action: str) -> Decision:
        decision = await self.authorizer.authorize_request(asker.cache, request)
        if not decision.allowed:
            self.denied(asker, action, request.resource.text, decision)
        return decision

    def denied_topic(
        self,
        asker: Asker,
        operation: Operation,
        topic: bytes,
        decision: Decision,
        *,
        count: int = 1,
    ) -> None:
        """Write the denial of a message to the audit log: to publish it (WRITE), or to deliver it (READ)."""
        action = "publish" if operation is Operation.WRITE else "deliver"
        try:
            text = request_for(asker.principal, operation, topic).resource.text
        except AclError:
            text = topic.decode(errors="replace")  # no resource has such a name
        self.denied(asker, action, text, decision, count=count)

    def denied(
        self, asker: Asker, action: str, resource: str, decision: Decision, *, count: int = 1
    ) -> None:
        """Write one denial to the audit log."""
        self._audit.record(
            AuditEvent(
                kind="authorization.denied",
                principal=asker.principal.name,
                action=action,
                resource=resource,
                outcome=AuditOutcome.DENY,
                reason=decision.reason,
                decision_id=decision.id,
                rule_id=decision.rule_id or "",
                epoch=decision.epoch,
                peer=asker.peer,
                count=count,
            )
        )
