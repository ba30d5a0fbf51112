"""What one connection knows of the ways of its topics, so that messages on many topics can be handed on as one slice.

INVARIANT: a topic is in the table only while the policy lets the client publish to it and its route is just a lane. So
the table is emptied before it is used when a route was forgotten or the L1 was flushed since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from broker.outlet import Outlet
    from broker.router import Router
    from broker.routes import Lane
    from cache.connection import ConnectionCache
    from mqtt.runs import Run

MAX_TOPICS: Final = 1_024  # of one connection; then it begins anew
MAX_TOPIC_BYTES: Final = 256  # longer ones go the ordinary way


class Lanes:
    """The lanes of one connection's topics.

    Attributes:
        table: topic behind its two-byte length, as on the wire, to its lane.
    """

    __slots__ = ("_cache", "_generation", "_most_bytes", "_own", "_router", "_stamp", "table")

    def __init__(
        self, router: Router, cache: ConnectionCache, own: Outlet, most_bytes: int
    ) -> None:
        """Start with none.

        Args:
            router: whose routes they belong to.
            cache: the connection's L1.
            own: the connection's outlet: of its version are the packets.
            most_bytes: the longest packet the client may send.
        """
        self._router = router
        self._cache = cache
        self._own = own
        self._most_bytes = most_bytes
        self._stamp = -1
        self._generation = -1
        self.table: dict[bytes, Lane] = {}

    def learn(self, run: Run, lane: Lane) -> None:
        """Note the lane of a message that was just delivered, and forget what is not true any more.

        Args:
            run: the message; the policy allowed it, and nothing was waited for since.
            lane: of its route.
        """
        if self._stamp != self._router.stamp or self._generation != self._cache.generation:
            self.table.clear()
            self._stamp, self._generation = self._router.stamp, self._cache.generation
        key = run.data[run.head : run.body]
        # A packet is as long as its client takes; whoever takes less than we do gets them one by one.
        if lane.version is not self._own.version or lane.max_packet_bytes < self._most_bytes:
            return
        if len(key) <= MAX_TOPIC_BYTES:
            if len(self.table) >= MAX_TOPICS:
                self.table.clear()
            self.table[key] = lane
