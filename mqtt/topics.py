"""Topic names and topic filters (4.7): their legality, and the only matcher of the two.

Knows two forms of the same rule: `matches` for one filter, and `FilterTree` for many; a
property test holds them equal. Levels are compared as they are, without normalisation (4.7.3-4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from typing_extensions import override

from mqtt.errors import LocalProtocolError, ReasonCode, RemoteProtocolError
from mqtt.wire import MAX_STRING_BYTES, text_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

MAX_TOPIC_LEVELS = 128
"""Levels of a topic or filter; our own bound, so that no tree grows deeper (others allow 200 or 128)."""
SHARED_PREFIX = "$share"
"""First level of a shared subscription's filter (4.8.2)."""

T = TypeVar("T")


def verify_topic_name(raw: bytes) -> str:
    """Return the topic name that `raw` holds.

    Raises:
        RemoteProtocolError: malformed string (0x81), or empty, too long, too many levels or with
            wildcards (0x90; 4.7.1-1, 4.7.3-1).
    """
    topic = text_of(raw, "topic name")
    complaint = topic_complaint(topic)
    if complaint is not None:
        raise RemoteProtocolError(complaint, ReasonCode.TOPIC_NAME_INVALID)
    return topic


def topic_complaint(topic: str) -> str | None:
    """Return why `topic`, a string without U+0000, is no topic name to publish to, or None."""
    if not topic:
        return "topic name is empty"
    if "+" in topic or "#" in topic:
        return "topic name holds a wildcard"
    if topic.count("/") >= MAX_TOPIC_LEVELS:
        return f"topic name has more than {MAX_TOPIC_LEVELS} levels"
    return None


def verify_topic_filter(text: str) -> tuple[str, ...]:
    """Return the levels of a topic filter, `$share/NAME` included when it has them.

    Raises:
        RemoteProtocolError: 0x8F, with the rule of 4.7.1, 4.7.3 or 4.8.2 that it breaks.
    """
    levels = tuple(text.split("/", MAX_TOPIC_LEVELS))
    complaint = filter_complaint(text, levels)
    if complaint is not None:
        raise RemoteProtocolError(complaint, ReasonCode.TOPIC_FILTER_INVALID)
    return levels


def filter_complaint(  # noqa: PLR0911 - one return per rule of 4.7
    text: str, levels: Sequence[str]
) -> str | None:
    """Return why `text`, split into `levels`, is no topic filter, or None."""
    if not text:
        return "topic filter is empty"
    if len(text) > MAX_STRING_BYTES:
        return f"topic filter is longer than {MAX_STRING_BYTES} bytes"
    if len(levels) > MAX_TOPIC_LEVELS:
        return f"topic filter has more than {MAX_TOPIC_LEVELS} levels"
    if "\0" in text:
        return "topic filter holds U+0000"
    last = len(levels) - 1
    for index, level in enumerate(levels):
        if "#" in level and (level != "#" or index != last):
            return "`#` must be the last level of its topic filter, alone"
        if "+" in level and level != "+":
            return "`+` must fill its whole level"
    if levels[0] == SHARED_PREFIX:
        return _shared_complaint(text, levels)
    return None


def _shared_complaint(text: str, levels: Sequence[str]) -> str | None:
    name_index, first_filter_index = 1, 2
    if len(levels) <= first_filter_index or text == f"{SHARED_PREFIX}/{levels[name_index]}/":
        return "shared subscription must be `$share/NAME/FILTER`"
    if levels[name_index] in ("", "+", "#"):
        return "share name must be at least one character, no wildcard"
    if levels[first_filter_index] == SHARED_PREFIX:
        return "a shared subscription cannot be shared again"
    return None


def split_shared(text: str) -> tuple[str | None, str]:
    """Return the share name, None for an ordinary subscription, and the filter that topics must match.

    Args:
        text: a verified topic filter.
    """
    if not text.startswith(f"{SHARED_PREFIX}/"):
        return None, text
    _, name, rest = text.split("/", 2)
    return name, rest


def matches(filter_levels: Sequence[str], topic_levels: Sequence[str]) -> bool:
    """Return whether a topic matches a filter, both split at `/` and legal.

    `#` also matches its parent (4.7.1.2); a leading wildcard matches no topic that begins with
    `$` (4.7.2-1).
    """
    if filter_levels[0] in ("+", "#") and topic_levels[0].startswith("$"):
        return False
    for index, level in enumerate(filter_levels):
        if level == "#":
            return True
        if index >= len(topic_levels) or level not in ("+", topic_levels[index]):
            return False
    return len(filter_levels) == len(topic_levels)


@dataclass(slots=True)
class _Node(Generic[T]):
    """One level of the tree; `here` and `below` hold what ends in this level and in `#` under it."""

    children: dict[str, _Node[T]]
    here: dict[Hashable, T]
    below: dict[Hashable, T]

    @property
    def empty(self) -> bool:
        return not (self.children or self.here or self.below)


class FilterTree(Generic[T]):
    """Values under topic filters, found by topic.

    A lookup visits at most two branches a level, the level itself and `+`, so its cost depends on
    the filters that can still match, not on how many there are. Depth is at most
    `MAX_TOPIC_LEVELS`; branches that hold nothing are removed.
    """

    def __init__(self) -> None:
        self._root: _Node[T] = _Node({}, {}, {})
        self._size = 0

    def __len__(self) -> int:
        """Pairs of filter and key."""
        return self._size

    @override
    def __repr__(self) -> str:
        return f"<FilterTree of {self._size}>"

    @property
    def nodes(self) -> int:
        """Nodes of the tree, the root included: what its memory is proportional to."""
        count = 0
        waiting = [self._root]
        while waiting:
            node = waiting.pop()
            count += 1
            waiting.extend(node.children.values())
        return count

    def add(self, filter: str, key: Hashable, value: T) -> None:  # noqa: A002 - MQTT's own word
        """Put `value` under `filter` for `key`, replacing what the pair held.

        Raises:
            LocalProtocolError: the filter is not legal.
        """
        levels = filter.split("/", MAX_TOPIC_LEVELS)
        complaint = filter_complaint(filter, levels)
        if complaint is not None:
            raise LocalProtocolError(complaint)
        node = self._root
        wide = levels[-1] == "#"
        for level in levels[:-1] if wide else levels:
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node({}, {}, {})
            node = child
        values = node.below if wide else node.here
        self._size += key not in values
        values[key] = value

    def remove(self, filter: str, key: Hashable) -> bool:  # noqa: A002 - MQTT's own word
        """Take away what `filter` holds for `key`; return whether there was anything."""
        levels = filter.split("/")
        wide = levels[-1] == "#"
        path = [self._root]
        names = levels[:-1] if wide else levels
        for level in names:
            child = path[-1].children.get(level)
            if child is None:
                return False
            path.append(child)
        values = path[-1].below if wide else path[-1].here
        if key not in values:
            return False
        del values[key]
        self._size -= 1
        for parent, level, child in zip(
            reversed(path[:-1]), reversed(names), reversed(path[1:]), strict=True
        ):
            if not child.empty:
                break
            del parent.children[level]
        return True

    def match(self, topic: str) -> list[T]:
        """Return the values of every filter that matches `topic`; one entry per filter and key."""
        levels = topic.split("/")
        found: list[T] = []
        nodes = [self._root]
        for index, level in enumerate(levels):
            wild = index > 0 or not topic.startswith("$")
            following: list[_Node[T]] = []
            for node in nodes:
                if wild and node.below:
                    found.extend(node.below.values())
                child = node.children.get(level)
                if child is not None:
                    following.append(child)
                child = node.children.get("+") if wild else None
                if child is not None:
                    following.append(child)
            nodes = following
            if not nodes:
                return found
        for node in nodes:
            found.extend(node.here.values())
            found.extend(node.below.values())
        return found
