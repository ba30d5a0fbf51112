"""QoS 1 to one client: packet identifiers, the window of unacknowledged messages, the queue behind it.

*Rules of this file*: never more unacknowledged messages than the client's Receive Maximum
(MQTT 3.3.4-9), in order (4.6.0-5); what does not fit the window waits in a bounded queue, and what
does not fit that is dropped and counted. The session ends with the connection, so nothing is resent.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from mqtt.convert import rewrite_publish

if TYPE_CHECKING:
    from broker.outlet import Outlet
    from mqtt.packets import Publish

LAST_PACKET_ID = 65_535  # MQTT 2.2.1: identifiers are 1 to 65,535


class Delivery:
    """Single messages to one client, at QoS 0 or 1.

    Attributes:
        dropped: QoS 1 messages dropped because the queue was full or the packet too large.
    """

    __slots__ = (
        "_last_id",
        "_max_queued",
        "_max_queued_bytes",
        "_outlet",
        "_queue",
        "_queued_bytes",
        "_window",
        "dropped",
        "unacknowledged",
    )

    def __init__(
        self, outlet: Outlet, *, receive_maximum: int, max_queued: int, max_queued_bytes: int
    ) -> None:
        """Start with an empty window.

        Args:
            outlet: the way to the client.
            receive_maximum: messages the client accepts unacknowledged.
            max_queued: messages that may wait behind that window.
            max_queued_bytes: bytes of packets that may wait there.
        """
        self._max_queued_bytes = max_queued_bytes
        self._queued_bytes = 0
        self._outlet = outlet
        self._window = receive_maximum
        self._max_queued = max_queued
        self._queue: deque[tuple[Publish, bool]] = deque()
        self._last_id = 0
        self.unacknowledged: set[int] = set()
        self.dropped = 0

    @property
    def queued(self) -> int:
        """Messages waiting behind the window."""
        return len(self._queue)

    def deliver(self, publish: Publish, *, qos: int, retain: bool) -> bool:
        """Send or queue one message.

        Returns:
            True when the outlet now needs a flush by the caller.
        """
        if qos == 0:
            data = rewrite_publish(
                publish,
                version=self._outlet.version,
                qos=0,
                packet_id=None,
                dup=False,
                retain=retain,
            )
            return self._outlet.put(data, len(data), 1)
        if not self._queue and self._may_send():
            return self._send(publish, retain=retain)
        size = self._queued_bytes + _size(publish)
        if len(self._queue) >= self._max_queued or size > self._max_queued_bytes:
            self.dropped += 1
            return False
        self._queue.append((publish, retain))
        self._queued_bytes = size
        return self._pump()

    def _may_send(self) -> bool:
        """Whether there is room; one message may always be under way: its PUBACK pulls the next."""
        under_way = len(self.unacknowledged)
        return not under_way or (under_way < self._window and not self._outlet.over_full)

    def acknowledged(self, packet_id: int) -> bool:
        """Take a PUBACK; unknown identifiers are ignored, as the standard asks of a sender.

        Returns:
            True when a queued message was sent and the outlet needs a flush.
        """
        self.unacknowledged.discard(packet_id)
        return self._pump()

    def _pump(self) -> bool:
        """Send what may be sent of the queue; True when the outlet needs a flush."""
        touched = False
        while self._queue and self._may_send():
            publish, retain = self._queue.popleft()
            self._queued_bytes -= _size(publish)
            touched = self._send(publish, retain=retain) or touched
        return touched

    def _send(self, publish: Publish, *, retain: bool) -> bool:
        packet_id = self._next_id()
        data = rewrite_publish(
            publish,
            version=self._outlet.version,
            qos=1,
            packet_id=packet_id,
            dup=False,
            retain=retain,
        )
        if len(data) > self._outlet.max_packet_bytes:
            self.dropped += 1
            return False
        self.unacknowledged.add(packet_id)
        return self._outlet.put_control(data)

    def _next_id(self) -> int:
        # Ends: the window is far narrower than 65,535, see `broker.admission.LARGEST_WINDOW`.
        while True:
            self._last_id = self._last_id % LAST_PACKET_ID + 1
            if self._last_id not in self.unacknowledged:
                return self._last_id


def _size(publish: Publish) -> int:
    """Bytes of a message as it came: its properties may be far larger than its payload."""
    return len(publish.raw) or len(publish.payload)
