"""The plain twin of `mqtt.reader`: one packet at a time, no cleverness; the oracle of its tests.

It gives every PUBLISH as `Publish` and every acknowledgement by itself, copies all it holds at every
step, and is for nothing else.
"""

from __future__ import annotations

from mqtt.decode import decode_body
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.order import InboundOrder
from mqtt.packets import Packet, Role, Version
from mqtt.wire import MAX_VARINT_BYTES, VARINT_BITS, VARINT_MORE, Cursor


def packet_size(data: bytes) -> int | None:
    """Return the length in bytes of the packet that `data` begins with, None while it is not known.

    Raises:
        RemoteProtocolError: the remaining length is too long or does not use the fewest bytes.
    """
    remaining_bytes = 0
    for index, byte in enumerate(data[1 : 1 + MAX_VARINT_BYTES]):
        remaining_bytes |= (byte & VARINT_BITS) << 7 * index
        if byte < VARINT_MORE:
            if index and byte == 0:
                raise RemoteProtocolError("remaining length does not use the fewest bytes")
            return 2 + index + remaining_bytes
    if len(data) > MAX_VARINT_BYTES:
        raise RemoteProtocolError("remaining length is longer than four bytes")
    return None


class PlainReader:
    """Same promises as `mqtt.reader.PacketReader`, but without runs."""

    def __init__(
        self,
        *,
        role: Role,
        max_packet_bytes: int,
        topic_alias_maximum: int = 0,
        allow_v31: bool = False,
    ) -> None:
        self._order = InboundOrder(
            role=role, topic_alias_maximum=topic_alias_maximum, allow_v31=allow_v31
        )
        self._max_packet_bytes = max_packet_bytes
        self._data = b""

    @property
    def version(self) -> Version:
        """The connection's version."""
        return self._order.version

    @version.setter
    def version(self, version: Version) -> None:
        self._order.version = version

    def feed(self, data: bytes) -> None:
        """Add bytes."""
        self._data += data

    def next_event(self) -> Packet | None:
        """Return the next packet, or None when more bytes are needed.

        Raises:
            RemoteProtocolError: the peer broke the protocol.
        """
        data, order = self._data, self._order
        if order.closed or not data:
            return None
        packet_type = order.verify_first_byte(data[0])
        size = packet_size(data)
        if size is None:
            return None
        if size > self._max_packet_bytes:
            raise RemoteProtocolError(
                f"packet of {size} bytes is longer than {self._max_packet_bytes}",
                ReasonCode.PACKET_TOO_LARGE,
            )
        if size > len(data):
            return None
        self._data = data[size:]
        cursor = Cursor(data[:size], 1)
        cursor.varint("remaining length")
        packet = decode_body(
            cursor, packet_type, order.version, order.role, allow_v31=order.allow_v31
        )
        return order.accept(packet)
