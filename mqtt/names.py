"""Values under topic names, found by filter: the mirror of `mqtt.topics.FilterTree`.

Theory of operation: a table of names answers for one name, which is the common case and costs one
lookup. Beside it a tree of levels leads a filter to the names it matches: at each level one
child, or all of them for `+`, and everything below for `#`. A property test holds it equal to
`mqtt.topics.matches` over all names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from typing_extensions import override

from mqtt.errors import LocalProtocolError
from mqtt.topics import topic_complaint

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


class _Node:
    """One level: the whole name that ends here, if one does, and the levels below."""

    __slots__ = ("children", "name")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.name: str | None = None


class TopicTree(Generic[T]):
    """A table of topic names that filters can be put to.

    Its depth is at most `MAX_TOPIC_LEVELS`, and branches that hold nothing are removed. How many names
    it holds is for its owner to bound.
    """

    __slots__ = ("_root", "_values")

    def __init__(self) -> None:
        self._values: dict[str, T] = {}
        # INVARIANT: a path of the tree spells each name of the table, and no other path ends in it.
        self._root = _Node()

    def __len__(self) -> int:
        """Names in the table."""
        return len(self._values)

    @override
    def __repr__(self) -> str:
        return f"<TopicTree of {len(self)}>"

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

    def get(self, topic: str) -> T | None:
        """Return the value of a name, None when it has none."""
        return self._values.get(topic)

    def put(self, topic: str, value: T) -> None:
        """Give a name a value, in the place of what it had.

        Raises:
            LocalProtocolError: it is no legal topic name.
        """
        if topic not in self._values:
            self._grow(topic)
        self._values[topic] = value

    def pop(self, topic: str) -> T | None:
        """Take a name away; return its value, None when it had none."""
        if topic not in self._values:
            return None
        self._prune(topic)
        return self._values.pop(topic)

    def match(self, filter: str) -> Iterator[tuple[str, T]]:  # noqa: A002 - MQTT's own word
        """Return every name that a filter matches, with its value, in no particular order.

        Args:
            filter: a legal topic filter, without `$share/NAME/`.

        Returns:
            an iterator that looks while it goes: change nothing before it is done.
        """
        values = self._values
        if "+" not in filter and "#" not in filter:
            if filter in values:
                yield filter, values[filter]
            return
        for name in self._names(filter.split("/")):
            yield name, values[name]

    def _names(self, levels: list[str]) -> Iterator[str]:
        end = len(levels)
        waiting = [(self._root, 0)]
        while waiting:
            node, index = waiting.pop()
            level = levels[index] if index < end else None
            if level is None:
                if node.name is not None:
                    yield node.name
            elif level == "#":
                yield from _below(node, at_root=not index)
            elif level == "+":
                waiting += [(child, index + 1) for child in _wild(node, at_root=not index)]
            elif (only := node.children.get(level)) is not None:
                waiting.append((only, index + 1))

    def _grow(self, topic: str) -> None:
        complaint = topic_complaint(topic)
        if complaint is not None:
            raise LocalProtocolError(complaint)
        node = self._root
        for level in topic.split("/"):
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        node.name = topic

    def _prune(self, topic: str) -> None:
        """Remove a name's path as far as no other name needs it."""
        node = forked = self._root
        cut = ""
        for level in topic.split("/"):
            # What lies above the last fork, or the last name on the way, stays.
            if len(node.children) > 1 or node.name is not None or node is self._root:
                forked, cut = node, level
            node = node.children[level]
        node.name = None
        if not node.children:
            del forked.children[cut]


def _wild(node: _Node, *, at_root: bool) -> list[_Node]:
    """Return the children that a wildcard matches: at the root none that begin with `$` (4.7.2-1)."""
    if at_root:
        return [child for level, child in node.children.items() if not level.startswith("$")]
    return list(node.children.values())


def _below(node: _Node, *, at_root: bool) -> Iterator[str]:
    """Return the names at `node` and below: `#` also matches its parent (4.7.1.2)."""
    if node.name is not None:
        yield node.name
    waiting = _wild(node, at_root=at_root)
    while waiting:
        node = waiting.pop()
        if node.name is not None:
            yield node.name
        waiting.extend(node.children.values())
