"""Topic aliases towards one client: which topics have one (3.3.2.3.4).

The first topics to come get the aliases the client allows, and keep them: a client that follows few topics gets
short packets, and one that follows many is not told a new alias with every message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_ALIASES: Final = (
    64  # towards one client, whatever it would take; each is a topic name in memory
)
MAX_ALIASED_BYTES: Final = 1_024  # longer topics get none
ALIAS_BYTES: Final = 3  # of the property; a topic must be longer for an alias to save anything


@dataclass(slots=True)
class Alias:
    """One alias.

    Attributes:
        number: from 1 on.
        told: the client has had a packet with it and the topic.
    """

    number: int
    told: bool = False


class Aliases:
    """The aliases of one connection.

    Args:
        maximum: the client's Topic Alias Maximum, at least 1.
    """

    __slots__ = ("_by_topic", "_maximum")

    def __init__(self, maximum: int) -> None:
        self._maximum = min(maximum, MAX_ALIASES)
        self._by_topic: dict[bytes, Alias] = {}

    def of(self, topic: bytes) -> Alias | None:
        """Return the alias of a topic, a new one while there are some; None when it has none."""
        alias = self._by_topic.get(topic)
        if alias is not None:
            return alias
        if len(self._by_topic) >= self._maximum:
            return None
        if not ALIAS_BYTES < len(topic) <= MAX_ALIASED_BYTES:
            return None
        alias = self._by_topic[topic] = Alias(len(self._by_topic) + 1)
        return alias
