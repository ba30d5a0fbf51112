"""Topic names that were verified once, so that a topic in use costs one lookup per run."""

from __future__ import annotations

from typing import Final

from mqtt.topics import verify_topic_name

MAX_KNOWN_TOPICS: Final = 4_096
"""Our own bound: well above the topics one device uses, about 1 MB when all are short."""
MAX_KNOWN_TOPIC_BYTES: Final = 256
"""Longer names are verified each time: remembering them would let a peer fill our memory."""


class KnownTopics:
    """A bounded table of legal topic names.

    May be shared by the readers of one thread: legality does not depend on who asks. When it is full it is
    emptied; what is in use comes back at the cost of verifying it once.

    Attributes:
        names: length-prefixed wire bytes of a topic to the topic's bytes; always the same dict.
    """

    __slots__ = ("names",)

    def __init__(self) -> None:
        self.names: dict[bytes, bytes] = {}

    def learn(self, key: bytes) -> bytes:
        """Verify a topic name and remember it.

        Args:
            key: the name behind its two-byte length, as on the wire.

        Returns:
            the name; the same object for the same name while it is remembered.

        Raises:
            RemoteProtocolError: it is no legal topic name.
        """
        known = self.names.get(key)
        if known is not None:
            return known
        topic = key[2:]
        verify_topic_name(topic)
        if len(topic) <= MAX_KNOWN_TOPIC_BYTES:
            if len(self.names) >= MAX_KNOWN_TOPICS:
                self.names.clear()
            self.names[key] = topic
        return topic
