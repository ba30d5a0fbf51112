"""The routes that are remembered, and which of them a change concerns.

*Theory of operation.* A route is found by its topic with one look-up. What ends it is found in two ways: the routes that
name a session by a note beside each session, those a filter matches in a tree of topics, which may be a long look and
is done in steps. What is forgotten leaves the table at once, because that is what makes it untrue; its place in
the tree, the notes, and the memory itself are given back a few at a time (`tidy`), so that to forget 65,536 routes takes some
10 ms and not a hundred.

*Rules of this file*: nothing here decides who gets what. The table is bounded in routes and bytes; beyond it begins anew.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from typing_extensions import override

from mqtt.names import STEP_NODES, TopicTree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.routes import Route
    from broker.session import Session

MAX_ROUTES = 65_536  # topics with a remembered route
MAX_ROUTES_BYTES = 64 << 20  # the same for its memory: topics are as long as their publishers like
MANY = 1_024  # routes of one session: where they are many of all, to forget all is cheaper
TIDIED_A_CHANGE = (
    256  # forgotten routes given back with a session that comes or goes: some 3 us each
)
TIDIED_A_ROUTE = (
    4  # with each that is remembered: more than one, so that what is forgotten never piles up
)
# To look through the tree for one filter is cheaper than to build all routes anew, for a thousand filters it is dearer.
LOOKS_A_ROUTE = 64  # levels looked at, for each route there is, before all are forgotten instead
LOOKS = 65_536  # that many are nothing


class RouteTable:
    """Topic to route.

    Attributes:
        routes: always the same dictionary.
        stamp: another number whenever a route was forgotten.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.routes: dict[bytes, Route] = {}
        self.stamp = 0
        self._bytes = 0
        self._looked_at = 0
        # INVARIANT: every topic with a route is in the tree, and the route in the note of each session it names; what else
        # is there is in `_forgotten`.
        self._topics: TopicTree[bytes] = TopicTree()
        self._notes: dict[Session, dict[bytes, Route]] = {}
        self._forgotten: deque[tuple[bytes, Route, TopicTree[bytes]]] = deque()

    @override
    def __repr__(self) -> str:
        return f"<RouteTable of {len(self.routes)}, {len(self._forgotten)} to be given back>"

    @property
    def kept(self) -> tuple[int, int]:
        """Levels in the tree, without its root, and sessions with a note: what there is beside the routes."""
        return self._topics.nodes - 1, len(self._notes)

    def remember(self, topic: bytes, route: Route) -> None:
        """Keep the route of a topic that has none."""
        self.tidy(TIDIED_A_ROUTE)
        size = len(topic) + route.memory
        if len(self.routes) >= MAX_ROUTES or self._bytes + size > MAX_ROUTES_BYTES:
            self.forget_all()
        self.routes[topic] = route
        self._bytes += size
        self._topics.put(topic.decode(), topic)
        for session in route.sessions():
            self._notes.setdefault(session, {})[topic] = route

    def forget_all(self) -> None:
        """Forget every route."""
        self.stamp += 1
        tree, self._topics = self._topics, TopicTree()
        self._forgotten.extend((topic, route, tree) for topic, route in self.routes.items())
        self.routes.clear()
        self._bytes = self._looked_at = 0

    def forget_session(self, session: Session) -> None:
        """Forget the routes that name a session."""
        noted = self._notes.pop(session, None)
        if noted and len(noted) > MANY and len(noted) * 4 > len(self.routes):
            self.forget_all()
        elif noted:
            for topic, route in noted.items():
                if self.routes.get(topic) is route:
                    self._forget(topic)
        self.tidy()

    def forget_matching(self, filter_: str) -> Iterator[None]:
        """Forget the routes of the topics that a filter matches, in steps between which others may have their turn.

        Args:
            filter_: without `$share/NAME/`.

        Returns:
            an iterator to be gone through: routes that were there when it began are forgotten when it ends.
        """
        for names in self._topics.look(filter_):
            for name in names:
                self._forget(name.encode())
            self._looked_at += STEP_NODES
            if self._looked_at > LOOKS + LOOKS_A_ROUTE * len(self.routes):
                self.forget_all()
                return
            yield

    def _forget(self, topic: bytes) -> None:
        route = self.routes.pop(topic, None)
        if route is not None:
            self.stamp += 1
            self._bytes -= len(topic) + route.memory
            self._forgotten.append((topic, route, self._topics))

    def tidy(self, most: int = TIDIED_A_CHANGE) -> None:
        """Give back what some forgotten routes hold."""
        forgotten, notes = self._forgotten, self._notes
        for _ in range(min(most, len(forgotten))):
            topic, route, tree = forgotten.popleft()
            for session in route.sessions():
                noted = notes.get(session)
                if noted is not None and noted.get(topic) is route:
                    del noted[topic]
                    if not noted:
                        del notes[session]
            if tree is not self._topics or topic not in self.routes:
                tree.pop(topic.decode())
