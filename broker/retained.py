"""Retained messages: the last one of each topic, for whoever subscribes later (3.3.1.3).

*Rules of this file*: an empty message removes and is never kept (3.3.1-6, -7). They are bounded in number and bytes;
what does not fit is refused. Who may read one is weighed when it is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.records import RetainedRecord
from mqtt.names import TopicTree

if TYPE_CHECKING:
    from broker.durability import Durability
    from broker.messages import Message, Messages

VOLATILE = "$SYS/"  # what the broker tells about itself is not worth a row


class Retained:
    """The retained messages of a broker."""

    def __init__(
        self, messages: Messages, store: Durability, *, max_messages: int, max_bytes: int
    ) -> None:
        """Start with none.

        Args:
            messages: keeps what must outlive the process.
            store: records which message is a topic's.
            max_messages: topics with one.
            max_bytes: of all packets together.
        """
        self._messages = messages
        self._store = store
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._tree: TopicTree[Message] = TopicTree()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._tree)

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
        size = len(message.run.data)
        more = size - (len(older.run.data) if older is not None else 0)
        if not topic.startswith(VOLATILE) and self._is_full(more, older is None):
            return False
        self._tree.put(topic, message)
        self.bytes += more
        if not topic.startswith(VOLATILE):
            self._messages.need(message)
            self._store.put_retained(RetainedRecord(topic=topic, message_id=message.stored_as))
            if older is not None:
                self._messages.release(older)
        return True

    def _is_full(self, more_bytes: int, more_topics: bool) -> bool:  # noqa: FBT001  a number, 0 or 1
        return (
            self.bytes + more_bytes > self._max_bytes
            or len(self._tree) + more_topics > self._max_messages
        )

    def _remove(self, topic: str, message: Message) -> None:
        self._tree.pop(topic)
        self.bytes -= len(message.run.data)
        if not topic.startswith(VOLATILE):
            self._store.drop_retained(topic)
            self._messages.release(message)

    def restored(self, message: Message) -> None:
        """Take back a message of an earlier life."""
        message.needed_by += 1
        self._tree.put(message.run.topic.decode(), message)
        self.bytes += len(message.run.data)

    def get(self, topic: str) -> Message | None:
        """Return the message of a topic; one that expired is removed."""
        message = self._tree.get(topic)
        if message is not None and message.expired(self._messages.clock()):
            self._remove(topic, message)
            return None
        return message

    def match(self, filter_: str) -> list[Message]:
        """Return the messages whose topic matches a filter; those that expired are removed."""
        now = self._messages.clock()
        found: list[Message] = []
        for topic, message in list(self._tree.match(filter_)):
            if message.expired(now):
                self._remove(topic, message)
            else:
                found.append(message)
        return found
