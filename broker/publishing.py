"""What becomes of a published message, whoever publishes it: weighed, kept, routed, or handed to a kernel.

Used by connections for their clients' messages, and for wills and delayed messages when those are due. The hot path
of QoS 0 runs is in `broker.connection`; this is where everything ends that is not at hand there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from broker.delayed import DELAYED_PREFIX, parse_delayed
from broker.kernels import KERNEL_PREFIX
from broker.outlet import flush_all
from broker.sys_topics import SYS_PREFIX
from broker.wills import will_run
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.runs import run_of

if TYPE_CHECKING:
    from acl.decide import Decision
    from broker.delayed import Delayed
    from broker.delivery import Lost
    from broker.durability import Durability
    from broker.guard import Asker, Guard
    from broker.kernels import Caller, KernelDispatch
    from broker.messages import Message, Messages
    from broker.outlet import Outlet
    from broker.records import WillRecord
    from broker.retained import Retained
    from broker.router import Router
    from broker.routes import Route
    from broker.session import Session
    from mqtt.runs import Run

log = structlog.get_logger("stockade.broker.publishing")

DOLLAR = b"$"
MAX_WEIGHED = (
    5  # times a publisher is weighed again because policy changed meanwhile; then it is refused
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the publisher is told of its messages.

    Attributes:
        reason: the code of PUBACK or PUBREC.
        text: the reason string.
        stored: wait for the store before saying so.
        patient: where the store cannot write, wait on instead of saying that.
    """

    reason: ReasonCode
    text: str = ""
    stored: bool = False
    patient: bool = False


DELIVERED = Outcome(reason=ReasonCode.SUCCESS)
NOBODY_THERE = Outcome(reason=ReasonCode.NO_MATCHING_SUBSCRIBERS)
STORED = Outcome(reason=ReasonCode.SUCCESS, stored=True)


class Publishing:
    """Takes messages over.

    Attributes:
        denied: messages that no rule allows.
        not_retained: delayed and will messages that were delivered and, for want of room, not retained.
    """

    def __init__(
        self,
        *,
        guard: Guard,
        router: Router,
        messages: Messages,
        retained: Retained,
        delayed: Delayed,
        kernels: KernelDispatch,
        store: Durability,
        lost: Lost,
    ) -> None:
        """Connect the parts; `lost` is told of wills for which there is no room."""
        self.guard = guard
        self.router = router
        self.messages = messages
        self.retained = retained
        self.delayed = delayed
        self.kernels = kernels
        self._store = store
        self._lost = lost
        self.denied = 0
        self.not_retained = 0
        self._retained_full = False

    async def publish(
        self, caller: Caller, run: Run, sender: Outlet | None, touched: list[Outlet]
    ) -> Outcome:
        """Take messages of one run over.

        Args:
            caller: who publishes; weighed.
            run: at any QoS; with RETAIN it is one packet.
            sender: the publisher's outlet, for no-local.
            touched: outlets that owe a flush, by the caller.
        """
        if run.topic.startswith(
            DOLLAR
        ):  # never into L1 as they are: the hot path knows no exceptions
            if run.topic.startswith(DELAYED_PREFIX):
                return await self._delay(caller, run)
            if run.topic.startswith(SYS_PREFIX):
                decision = self.guard.forbid_publish(
                    caller, run.topic, "`$SYS` is the broker's own"
                )
                return self._deny(decision, run.count)
        if run.topic.startswith(KERNEL_PREFIX):
            return await self._call(caller, run)
        for _ in range(MAX_WEIGHED):
            changes = self.guard.policy_changes
            decision = await self.guard.may_publish(caller, run.topic, count=run.count)
            if not decision.allowed:
                return self._deny(decision, run.count)
            route = await self.router.route(run.topic)
            if changes == self.guard.policy_changes:  # both are of the policy of now
                return self.hand_on(route, run, caller, sender, touched)
        reason = "the policy changed faster than it could be asked"
        return self._deny(self.guard.forbid_publish(caller, run.topic, reason), run.count)

    async def _call(self, caller: Caller, run: Run) -> Outcome:
        decision = await self.guard.may_publish(caller, run.topic, count=run.count)
        if not decision.allowed:
            return self._deny(decision, run.count)
        refusal = await self.kernels.call_run(caller, run)
        return DELIVERED if refusal is None else Outcome(reason=refusal.reason, text=refusal.text)

    def hand_on(
        self, route: Route, run: Run, caller: Asker, sender: Outlet | None, touched: list[Outlet]
    ) -> Outcome:
        """Deliver what was allowed, along the route of its topic; without waiting."""
        if not run.qos and not run.retain:
            reached = self.router.deliver_run(route, run, sender, caller.principal.name, touched)
            return DELIVERED if reached else NOBODY_THERE
        failing = self._store.failing
        if failing and (run.qos or run.retain):
            return Outcome(
                reason=ReasonCode.QUOTA_EXCEEDED,
                text=f"the broker cannot store messages: {failing}",
            )
        message = self.messages.take(run, caller.principal)
        if run.retain and not self.retained.put(message):
            return Outcome(
                reason=ReasonCode.QUOTA_EXCEEDED, text="no room for more retained messages"
            )
        reached = self.router.deliver(route, message, sender, touched)
        if (
            message.stored_as or run.retain
        ):  # also an empty one: what it removed is on disk till then
            return STORED
        return DELIVERED if reached else NOBODY_THERE

    async def _delay(self, caller: Asker, run: Run) -> Outcome:
        try:
            delay_s, topic = parse_delayed(run.topic)
        except RemoteProtocolError as error:
            return Outcome(reason=error.reason, text=error.message)
        if self._store.failing:
            return Outcome(
                reason=ReasonCode.QUOTA_EXCEEDED, text="the broker cannot store messages"
            )
        decision = await self.guard.may_publish(caller, topic, count=run.count)
        if not decision.allowed:
            return self._deny(decision, run.count)
        if not self.delayed.has_room(caller.principal.name, run.count, len(run.data)):
            return Outcome(
                reason=ReasonCode.QUOTA_EXCEEDED, text="no room for more delayed messages"
            )
        for index in range(run.count):
            message = self.messages.take(_meant(run, index, topic), caller.principal)
            self.delayed.add(message, message.received_at + delay_s)
        return STORED

    async def publish_late(self, message: Message, changes: int, touched: list[Outlet]) -> bool:
        """Publish a message that was taken over before and is due now.

        Args:
            message: one packet.
            changes: the policy under which its publisher was found to be allowed to, as a count of changes.
            touched: outlets that owe a flush; paid before each wait.

        Returns:
            False when the policy has changed since; then nothing was done.
        """
        topic = message.run.topic
        if topic not in self.router.routes:
            flush_all(touched)
        route = await self.router.route(topic)
        if self.guard.policy_changes != changes:
            return False
        if message.run.retain:
            self._retain(message)
        self.router.deliver(route, message, None, touched)
        return True

    def _retain(self, message: Message) -> None:
        """Retain a message whose publisher cannot be told any more where there is no room."""
        full = not self.retained.put(message)
        self.not_retained += full
        if full and not self._retained_full:  # said once, until there is room again
            log.warning(
                "no room for more retained messages",
                topic=message.run.topic.decode(),
                principal=message.publisher.name,
            )
        self._retained_full = full

    def publish_will(self, session: Session, record: WillRecord) -> None:
        """Have the will of a session whose client vanished published, weighed like any other message.

        It waits with the delayed messages, where it outlives this process until it is decided about; whoever calls
        forgets it in the same step.
        """
        run = will_run(record)
        if run.topic.startswith(KERNEL_PREFIX):
            return  # a kernel answers its caller, who is gone
        message = self.messages.take(run, session.principal)
        if self.delayed.has_room_for_will(session.principal.name, len(run.data)):
            self.delayed.add(message, message.received_at)
        else:
            self._lost(message, 0, 1, "no room")

    def _deny(self, decision: Decision, count: int) -> Outcome:
        self.denied += count
        return Outcome(
            reason=ReasonCode.NOT_AUTHORIZED, text=f"not authorized, decision {decision.id}"
        )


def _meant(run: Run, index: int, topic: bytes) -> Run:
    """Packet `index` as it is published later."""
    return run_of(replace(run.packet(index), topic=topic.decode()), run.version)
