"""Retained messages: the last one of each topic, for whoever subscribes later (3.3.1.3).

*Rules of this file*: an empty message removes and is never kept (3.3.1-6, -7). They are bounded in number and bytes,
in all and for each principal; what does not fit is refused. Who may read one is weighed when it is sent.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from broker.quota import Quota
from broker.records import RetainedRecord
from mqtt.names import TopicTree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.durability import Durability
    from broker.messages import Message, Messages
    from broker.quota import QuotaLimits

EXPIRED_A_TURN = 256  # looked at in a row: some 5 us each
VOLATILE = "$SYS/"  # what the broker tells about itself is not worth a row


class Retained:
    """The retained messages of a broker."""

    def __init__(self, messages: Messages, store: Durability, *, limits: QuotaLimits) -> None:
        """Start with none.

        Args:
            messages: keeps what must outlive the process.
            store: records which message is a topic's.
            limits: how many, and of whom.
        """
        self._messages = messages
        self._store = store
        self._quota = Quota(limits)
        self._tree: TopicTree[Message] = TopicTree()
        # When to look at a topic because its message may have expired; one entry a topic.
        self._to_look_at: list[tuple[float, str]] = []
        self._looked_for: set[str] = set()

    def __len__(self) -> int:
        return len(self._tree)

    @property
    def bytes(self) -> int:
        """Of all packets together."""
        return self._quota.bytes

    def put(self, message: Message) -> bool:
        """Keep, replace or remove the message of its topic.

        Args:
            message: one packet.

        Returns:
            False when it does not fit; then nothing changed.
        """
        topic = message.run.topic.decode()
        older = self._tree.get(topic)
        if not message.run.payload_bytes:
            if older is not None:
                self._remove(topic, older)
            return True
        volatile = topic.startswith(VOLATILE)
        if not volatile and not self._fits(message, older):
            self.drop_expired()
            older = self._tree.get(topic)
            if not self._fits(message, older):
                return False
        if older is not None:
            self._quota.remove(older.publisher.name, len(older.run.data))
        self._keep(topic, message)
        if not volatile:
            self._messages.need(message)
            self._store.put_retained(RetainedRecord(topic=topic, message_id=message.stored_as))
            if older is not None:
                self._messages.release(older)
        return True

    def _fits(self, message: Message, older: Message | None) -> bool:
        """Whether there is room for a message in the place of an older one."""
        quota = self._quota
        if older is not None:
            quota.remove(older.publisher.name, len(older.run.data))
        fits = quota.fits(message.publisher.name, 1, len(message.run.data))
        if older is not None:
            quota.add(older.publisher.name, len(older.run.data))
        return fits

    def _keep(self, topic: str, message: Message) -> None:
        self._tree.put(topic, message)
        self._quota.add(message.publisher.name, len(message.run.data))
        self._look_at(topic, message)

    def _look_at(self, topic: str, message: Message) -> None:
        if message.expires_at is not None and topic not in self._looked_for:
            self._looked_for.add(topic)
            heappush(self._to_look_at, (message.expires_at, topic))

    def drop_expired(self) -> None:
        """Remove some messages that expired: nobody need ask for them for their place to be free again."""
        now = self._messages.clock()
        for _ in range(EXPIRED_A_TURN):
            if not self._to_look_at or self._to_look_at[0][0] > now:
                return
            _, topic = heappop(self._to_look_at)
            self._looked_for.discard(topic)
            message = self.get(topic)  # which removes it if it has expired
            if message is not None:
                self._look_at(topic, message)

    def _remove(self, topic: str, message: Message) -> None:
        self._tree.pop(topic)
        self._quota.remove(message.publisher.name, len(message.run.data))
        if not topic.startswith(VOLATILE):
            self._store.drop_retained(topic)
            self._messages.release(message)

    def restored(self, message: Message) -> None:
        """Take back a message of an earlier life."""
        message.needed_by += 1
        self._keep(message.run.topic.decode(), message)

    def get(self, topic: str) -> Message | None:
        """Return the message of a topic; one that expired is removed."""
        message = self._tree.get(topic)
        if message is not None and message.expired(self._messages.clock()):
            self._remove(topic, message)
            return None
        return message

    def look(self, filter_: str) -> Iterator[list[str]]:
        """Find the topics that match a filter and had a message, in steps of a bounded size.

        Returns:
            an iterator that looks while it goes; others may have their turn, and change what is kept, in between.
        """
        return self._tree.look(filter_)
