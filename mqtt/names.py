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

STEP_NODES = 512  # levels looked at in a row: some 0.1 ms


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

    def look(self, filter: str) -> Iterator[list[str]]:  # noqa: A002 - MQTT's own word
        """Find the names that a filter matches, in steps; a filter may match few and still concern many.

        The table may change between two steps. What was there before the first and is there after the last is found;
        what came or went meanwhile may be found or not.

        Args:
            filter: a legal topic filter, without `$share/NAME/`.

        Returns:
            an iterator over what each step found, in no particular order and maybe nothing: a step looks at some
            `STEP_NODES` levels.
        """
        if "+" not in filter and "#" not in filter:
            yield [filter] if filter in self._values else []
            return
        levels = filter.split("/")
        end = len(levels)
        # The levels not looked at yet, by their depth in the filter; a list of children each, as it was when it was met.
        waiting = [(iter((self._root,)), 0)]
        found: list[str] = []
        looked_at = 0
        while waiting:
            siblings, index = waiting[-1]
            node = next(siblings, None)
            if node is None:
                waiting.pop()
                continue
            looked_at += 1
            level = levels[index] if index < end else None
            if node.name is not None and (level is None or level == "#"):
                found.append(node.name)  # `#` also matches its parent (4.7.1.2)
            if level == "#":
                waiting.append((self._wild(node), index))
            elif level == "+":
                waiting.append((self._wild(node), index + 1))
            elif level is not None and (only := node.children.get(level)) is not None:
                waiting.append((iter((only,)), index + 1))
            if looked_at >= STEP_NODES:
                yield found
                found, looked_at = [], 0
        yield found

    def _wild(self, node: _Node) -> Iterator[_Node]:
        """Return the children that a wildcard matches: at the root none that begin with `$` (4.7.2-1)."""
        if node is self._root:
            return iter(
                [child for level, child in node.children.items() if not level.startswith("$")]
            )
        return iter(list(node.children.values()))

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
