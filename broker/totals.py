"""The broker's counts as one picture: what `$SYS` shows, from the same sources as the metrics page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.sys_topics import Totals

if TYPE_CHECKING:
    from broker.metrics import Sources


class BrokerTotals:
    """Adds up what the rooms count."""

    def __init__(self, sources: Sources) -> None:
        """Remember where to look.

        Args:
            sources: the rooms.
        """
        self._from = sources

    def totals(self) -> Totals:
        """Return the counts of now; linear in the number of sessions."""
        rooms = self._from
        sessions = rooms.registry.all_sessions()
        connected = len(rooms.registry)
        live = tuple(rooms.registry)
        dropped = rooms.count.dropped_slow + sum(each.outlet.dropped for each in live)
        messages = rooms.publishing.messages
        return Totals(
            clients_connected=connected,
            clients_disconnected=sum(each.connection is None for each in sessions),
            clients_maximum=rooms.registry.most_connected,
            clients_expired=rooms.registry.expired,
            messages_received=rooms.count.messages_in,
            messages_sent=rooms.router.messages_out,
            messages_dropped=dropped + sum(rooms.dead_letters.lost.values()),
            bytes_received=rooms.count.bytes_in,
            bytes_sent=rooms.count.bytes_out + sum(each.outlet.sent_bytes for each in live),
            stored=messages.stored,
            stored_bytes=messages.stored_bytes,
            retained=len(rooms.publishing.retained),
            subscriptions=rooms.router.subscriptions,
            shared_subscriptions=rooms.router.shared_subscriptions,
            inflight=sum(each.delivery.outgoing.in_flight for each in sessions),
        )
