"""What is published later: `$delayed/SECONDS/TOPIC` when the seconds have passed, and wills.

*Rules of this file*: the right to publish is weighed when a delayed message is taken, on the topic it is meant for, and
again when it is due. Only an answer of the policy drops it then: while nobody can say, it waits. Delayed messages are
bounded in number, bytes and delay, in all and for each principal, and survive a restart where there is a store.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

import trio

from broker.outlet import flush_all
from broker.quota import Quota
from broker.records import DelayedRecord
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.topics import verify_topic_name

if TYPE_CHECKING:
    from broker.delivery import Lost
    from broker.durability import Durability
    from broker.faults import Faults
    from broker.messages import Message, Messages
    from broker.outlet import Outlet
    from broker.publishing import Publishing
    from broker.quota import QuotaLimits

DELAYED_PREFIX = b"$delayed/"
TICK_S = 0.25  # seconds between two looks at what is due; a delay is in whole seconds
RETRY_S = 1.0  # until a message that nobody could decide about is due again
TOGETHER = 64  # messages that are due, weighed at once
MAX_DELAY_S = 4_294_967  # some 49 days; the bound other brokers have


def parse_delayed(topic: bytes) -> tuple[int, bytes]:
    """Return the delay in seconds, and the topic that is meant.

    Args:
        topic: begins with `DELAYED_PREFIX`.

    Raises:
        RemoteProtocolError: 0x90, it is not of that form.
    """
    seconds, slash, meant = topic[len(DELAYED_PREFIX) :].partition(b"/")
    if not slash or not meant or not seconds.isdigit() or len(seconds) > len(str(MAX_DELAY_S)):
        raise RemoteProtocolError("write `$delayed/SECONDS/TOPIC`", ReasonCode.TOPIC_NAME_INVALID)
    delay_s = int(seconds)
    if delay_s > MAX_DELAY_S:
        raise RemoteProtocolError(
            f"a message can be delayed by at most {MAX_DELAY_S} seconds",
            ReasonCode.TOPIC_NAME_INVALID,
        )
    if meant.startswith((b"$", b"kernel/")):
        raise RemoteProtocolError(
            "a delayed message cannot be for a `$` topic or a kernel", ReasonCode.TOPIC_NAME_INVALID
        )
    verify_topic_name(meant)
    return delay_s, meant


class Delayed:
    """The delayed messages of a broker, the next one first; wills that are due are among them."""

    def __init__(
        self,
        messages: Messages,
        store: Durability,
        *,
        limits: QuotaLimits,
        lost: Lost = lambda _message, _first, _count, _reason: None,
    ) -> None:
        """Start with none.

        Args:
            messages: keeps what must outlive the process.
            store: records what is due when.
            limits: how many, and of whom.
            lost: told of those that expired before they were due.
        """
        self._messages = messages
        self._store = store
        self._quota = Quota(limits)
        self._lost = lost
        self._heap: list[tuple[float, int, Message]] = []
        self._tie = 0
        self._has_due = trio.Event()

    def __len__(self) -> int:
        """Those that are not published yet, also while they are weighed."""
        return self._quota.messages

    @property
    def overdue(self) -> bool:
        """Whether some are due now, or being published."""
        return self.has_due or self._quota.messages > len(self._heap)

    @property
    def bytes(self) -> int:
        """Of their packets."""
        return self._quota.bytes

    def has_room(self, principal: str, count: int, size_bytes: int) -> bool:
        """Whether so many more messages of a principal, of this size together, fit."""
        return self._quota.fits(principal, count, size_bytes)

    def has_room_for_will(self, principal: str, size_bytes: int) -> bool:
        """Whether a will that is due fits: there are no more than sessions, so others' messages do not take its place."""
        return self._quota.fits_share(principal, 1, size_bytes)

    def add(self, message: Message, due_at: float) -> None:
        """Keep a message, for which there is room, until it is due."""
        self._messages.need(message)
        self._store.put_delayed(DelayedRecord(message_id=message.stored_as, due_at=due_at))
        self._keep(message, due_at)

    def restored(self, message: Message, due_at: float) -> None:
        """Take back a message of an earlier life."""
        message.needed_by += 1
        self._keep(message, due_at)

    def _keep(self, message: Message, due_at: float) -> None:
        self._quota.add(message.publisher.name, len(message.run.data))
        self._push(message, due_at)

    def _push(self, message: Message, due_at: float) -> None:
        self._tie += 1
        heappush(self._heap, (due_at, self._tie, message))
        if due_at <= self._messages.clock():
            self._has_due.set()

    async def wait_until_due(self) -> None:
        """Return when a message came that is due at once, or after `TICK_S`."""
        with trio.move_on_after(TICK_S):
            await self._has_due.wait()
        self._has_due = trio.Event()

    @property
    def has_due(self) -> bool:
        """Whether the next one is due now."""
        return bool(self._heap) and self._heap[0][0] <= self._messages.clock()

    def due(self, most: int) -> list[Message]:
        """Take the next messages that are due and did not expire; `done` or `again` must follow for each.

        Args:
            most: how many, those that expired included: they are lost here.
        """
        now = self._messages.clock()
        found: list[Message] = []
        for _ in range(most):
            if not self.has_due:
                break
            _, _, message = heappop(self._heap)
            if message.expired(now):
                self._lost(message, 0, message.run.count, "expired")
                self.done(message)
            else:
                found.append(message)
        return found

    def done(self, message: Message) -> None:
        """A message that `due` gave was published, or may not be."""
        self._quota.remove(message.publisher.name, len(message.run.data))
        self._store.drop_delayed(message.stored_as)
        self._messages.release(message)

    def again(self, message: Message) -> None:
        """Nobody could say whether a message that `due` gave may be published: it is due again in `RETRY_S`."""
        self._push(message, self._messages.clock() + RETRY_S)


class DelayedPublisher:
    """Publishes delayed messages when they are due."""

    def __init__(self, publishing: Publishing, faults: Faults) -> None:
        """Connect with where they wait, and where they are published."""
        self._publishing = publishing
        self._faults = faults

    async def run(self) -> None:
        """Publish for as long as the broker lives."""
        while True:
            await self._publishing.delayed.wait_until_due()
            self._publishing.retained.drop_expired()
            # Without a policy nobody can say whether they may be published.
            if not self._publishing.guard.refusal:
                with self._faults.contained("publish delayed messages"):
                    await self.publish_due()

    async def publish_due(self) -> None:
        """Publish everything that is due, if its publisher still may; later, where nobody can say so now."""
        publishing = self._publishing
        while publishing.delayed.has_due:
            undecided = dict.fromkeys(publishing.delayed.due(TOGETHER))
            try:
                await self._publish(undecided)
            finally:
                for message in undecided:
                    publishing.delayed.again(message)

    async def _publish(self, undecided: dict[Message, None]) -> None:
        """Publish messages, or drop them; those that nobody can decide about stay in the table."""
        publishing = self._publishing
        guard, changes = publishing.guard, publishing.guard.policy_changes
        touched: list[Outlet] = []
        messages = tuple(undecided)
        decisions = await guard.may_publish_absent([(m.publisher, m.run.topic) for m in messages])
        for message, decision in zip(messages, decisions, strict=True):
            finished = False
            try:  # one that cannot be published for an error of ours holds up no other
                with self._faults.contained("publish a delayed message"):
                    if decision.allowed:
                        finished = await publishing.publish_late(message, changes, touched)
                    else:
                        finished = decision.answered
                        publishing.denied += finished
                if finished:
                    del undecided[message]
                    publishing.delayed.done(message)
            finally:
                flush_all(touched)
            await trio.lowlevel.checkpoint()  # one may be for thousands
