"""QoS 1 and 2 from the receiver's side: which messages of one client are new, and how many it has open (4.3, 4.9).

*Rules of this file.*

- An identifier of a QoS 2 message is remembered from its PUBLISH to its PUBREL, and what comes under it in between is
  the same message (4.3.3-10); after PUBREL, or a PUBREC that reports a failure, it is a new one (4.3.3-9, -12).
- A client has no more messages open than the Receive Maximum it was told (3.3.4-9). It counts anew on each connection,
  and each PUBCOMP gives it a place back, also one for a PUBREL it repeats from an earlier connection (4.9). We
  never count more than it does: a client that keeps the rule is never cut off.
- What is kept is bounded by the number of packet identifiers, whatever a client sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from mqtt.errors import ReasonCode, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Incoming:
    """What one session has received and may not forget yet.

    Attributes:
        received: identifiers of QoS 2 messages taken and not released, on whichever connection they came.
        open: messages of this connection without their last answer, which is PUBACK, PUBCOMP, or a PUBREC with a
            failure. Below zero when more of earlier connections were released.
    """

    __slots__ = ("open", "received")

    def __init__(self, received: Sequence[int] = ()) -> None:
        """Start without a connection.

        Args:
            received: what an earlier life left of it.
        """
        self.received = set(received)
        self.open = 0

    @override
    def __repr__(self) -> str:
        return f"<Incoming {len(self.received)} unreleased, {self.open} open>"

    def begin(self) -> None:
        """A new connection: answers of the old one are not owed any more, and the client counts from zero."""
        self.open = 0

    def admit(self, count: int, receive_maximum: int) -> None:
        """Count QoS 1 messages, or QoS 2 messages that are new, as open.

        Raises:
            RemoteProtocolError: more than the client may have open (0x93); nothing has changed.
        """
        if self.open + count > receive_maximum:
            raise RemoteProtocolError(
                f"more than {receive_maximum} messages are not acknowledged",
                ReasonCode.RECEIVE_MAXIMUM_EXCEEDED,
            )
        self.open += count

    def answered(self, count: int) -> None:
        """The PUBACK of so many messages was sent, or their PUBREC with a failure though they were never taken."""
        self.open -= count

    def all_new(self, packet_ids: Sequence[int]) -> bool:
        """Whether QoS 2 messages with these identifiers are all new, and all different."""
        return self.received.isdisjoint(packet_ids) and len(set(packet_ids)) == len(packet_ids)

    def is_new(self, packet_id: int) -> bool:
        """Whether a QoS 2 message with this identifier is a new one."""
        return packet_id not in self.received

    def take(self, packet_ids: Sequence[int]) -> None:
        """Remember new QoS 2 messages: they are the broker's now, and open until they are released."""
        self.received.update(packet_ids)

    def give_back(self, packet_ids: Sequence[int]) -> None:
        """Forget QoS 2 messages that were taken and get a PUBREC with a failure after all (4.3.3-9)."""
        self.received.difference_update(packet_ids)
        self.open -= len(packet_ids)

    def release(self, packet_ids: Sequence[int]) -> list[bool]:
        """Take PUBRELs; say for each whether it was known (PUBCOMP 0x00) or not (0x92)."""
        received = self.received
        self.open -= len(packet_ids)
        known: list[bool] = []
        for packet_id in packet_ids:
            known.append(packet_id in received)
            received.discard(packet_id)  # at once: it may come twice
        return known
