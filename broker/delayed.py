"""Delayed publish: `$delayed/SECONDS/TOPIC` is published to TOPIC when the seconds have passed.

*Rules of this file*: the right to publish is weighed when the message is taken, on the topic it is meant for, and again
when it is due. Delayed messages are bounded in number, bytes and delay, and survive a restart where there is a store.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import trio

from broker.records import DelayedRecord
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.topics import verify_topic_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from acl.model import Principal
    from broker.delivery import Lost
    from broker.durability import Durability
    from broker.messages import Message, Messages
    from broker.outlet import Outlet
    from broker.publishing import Publishing
    from cache.connection import ConnectionCache

DELAYED_PREFIX = b"$delayed/"
TICK_S = 0.25  # seconds between two looks at what is due; a delay is in whole seconds
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
    """The delayed messages of a broker, the next one first."""

    def __init__(
        self,
        messages: Messages,
        store: Durability,
        *,
        max_messages: int,
        max_bytes: int,
        lost: Lost = lambda _message, _first, _count, _reason: None,
    ) -> None:
        """Start with none.

        Args:
            messages: keeps what must outlive the process.
            store: records what is due when.
            max_messages: that wait.
            max_bytes: of all their packets together.
            lost: told of those that expired before they were due.
        """
        self._messages = messages
        self._store = store
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._lost = lost
        self._heap: list[tuple[float, int, Message]] = []
        self._tie = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._heap)

    def has_room(self, count: int, size_bytes: int) -> bool:
        """Whether so many more messages of this size together fit."""
        return (
            len(self) + count <= self._max_messages and self.bytes + size_bytes <= self._max_bytes
        )

    def add(self, message: Message, due_at: float) -> None:
        """Keep a message, for which there is room, until it is due."""
        self._messages.need(message)
        self._store.put_delayed(DelayedRecord(message_id=message.stored_as, due_at=due_at))
        self._push(message, due_at)

    def restored(self, message: Message, due_at: float) -> None:
        """Take back a message of an earlier life."""
        message.needed_by += 1
        self._push(message, due_at)

    def _push(self, message: Message, due_at: float) -> None:
        self._tie += 1
        heappush(self._heap, (due_at, self._tie, message))
        self.bytes += len(message.run.data)

    def due(self, now: float) -> Message | None:
        """Take the next message that is due and did not expire, None when there is none; `done` must follow."""
        while self._heap and self._heap[0][0] <= now:
            _, _, message = heappop(self._heap)
            if not message.expired(now):
                return message
            self._lost(message, 0, message.run.count, "expired")
            self.done(message)
        return None

    def done(self, message: Message) -> None:
        """A message that `due` gave was published, or may not be."""
        self.bytes -= len(message.run.data)
        self._store.drop_delayed(message.stored_as)
        self._messages.release(message)


@dataclass(frozen=True, slots=True)
class AbsentPublisher:
    """Who published a message, as the guard sees it when the message is due."""

    principal: Principal
    cache: ConnectionCache
    peer: str = ""


class DelayedPublisher:
    """Publishes delayed messages when they are due."""

    def __init__(self, publishing: Publishing, clock: Callable[[], float]) -> None:
        """Connect with where they wait.

        Args:
            publishing: where they wait, and where they are published.
            clock: seconds since the epoch.
        """
        self._publishing = publishing
        self._clock = clock

    async def run(self) -> None:
        """Publish for as long as the broker lives."""
        while True:
            await trio.sleep(TICK_S)
            if (
                not self._publishing.guard.refusal
            ):  # without a policy everything would be denied, and lost
                await self.publish_due()

    async def publish_due(self) -> None:
        """Publish everything that is due, if its publisher still may."""
        publishing = self._publishing
        touched: list[Outlet] = []
        while (message := publishing.delayed.due(self._clock())) is not None:
            cache = publishing.guard.authorizer.open(message.publisher)
            try:
                asker = AbsentPublisher(message.publisher, cache)
                await publishing.publish_message(asker, message, touched)
            finally:
                cache.close()
            publishing.delayed.done(message)
        for outlet in touched:
            outlet.flush_now()
