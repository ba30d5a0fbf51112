"""A run: QoS 0 messages that differ in nothing but their payload, held as one slice of bytes.

A run is the unit of work of the data path: it is authorized, counted and forwarded as a whole.
`Run` is a view of bytes that the reader has verified completely; nothing here checks again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from mqtt.decode import decode_packet, decode_publish
from mqtt.errors import LocalProtocolError
from mqtt.packets import Publish, Role, Version
from mqtt.wire import Cursor

if TYPE_CHECKING:
    from mqtt.packets import Properties

RETAIN = 1
"""The RETAIN bit of a PUBLISH's first byte (3.3.1)."""


class Run:
    """One or more QoS 0 PUBLISH packets, back to back, equal in all but properties and payload.

    All packets have the same fixed header, topic and property length, so that every offset below
    holds in each of them. Treat it as immutable.

    Attributes:
        data: the packets' wire bytes; a subscriber of the same version can have them as they are.
        stride: bytes of one packet, fixed header included; `len(data) == stride * count`.
        count: packets, at least 1.
        head: offset in a packet where the variable header (the topic's length) begins.
        topic: the topic name as on the wire; equal topics of one reader are the same object.
        body: offset in a packet just behind the topic; in 5.0 the property length stands here.
        payload: offset in a packet where the payload begins; equals `stride` when it is empty.
        version: the version in which `data` is written.
    """

    __slots__ = ("body", "count", "data", "head", "payload", "stride", "topic", "version")

    def __init__(  # noqa: PLR0917 - positional, because one is built for each run on the hot path
        self,
        data: bytes,
        stride: int,
        count: int,
        head: int,
        topic: bytes,
        body: int,
        payload: int,
        version: Version,
    ) -> None:
        self.data = data
        self.stride = stride
        self.count = count
        self.head = head
        self.topic = topic
        self.body = body
        self.payload = payload
        self.version = version

    @classmethod
    def parse(cls, packet: bytes, version: Version) -> Run:
        """Return one encoded QoS 0 PUBLISH as a run of one.

        Args:
            packet: exactly one packet, without a topic alias.
            version: the version it is written in.

        Raises:
            RemoteProtocolError: the bytes break a rule of MQTT.
            LocalProtocolError: they are another packet, or use a topic alias.
        """
        decoded = decode_packet(packet, version, Role.CLIENT)
        if not isinstance(decoded, Publish) or decoded.qos or not decoded.raw:
            raise LocalProtocolError("only a QoS 0 PUBLISH without a topic alias is a run")
        cursor = Cursor(packet, 1)
        cursor.varint("remaining length")
        head, topic = cursor.position, decoded.topic_bytes
        payload = len(packet) - len(decoded.payload)
        body = head + 2 + len(topic)
        return cls(packet, len(packet), 1, head, topic, body, payload, version)

    def repeated(self, data: bytes, count: int) -> Run:
        """Return a run of other packets with this one's header, topic and offsets.

        Args:
            data: `count` packets, back to back. INVARIANT, the caller's: they differ from this run's in
                payload and the values of properties only, and those are legal.
            count: at least 1.

        Raises:
            LocalProtocolError: the length does not fit, or the first packet does not begin alike.
        """
        if (
            count < 1
            or len(data) != self.stride * count
            or data[: self.body] != self.data[: self.body]
        ):
            raise LocalProtocolError("the packets are not of this run's form")
        return Run(
            data, self.stride, count, self.head, self.topic, self.body, self.payload, self.version
        )

    @override
    def __repr__(self) -> str:
        return f"<Run of {self.count} x {self.stride} bytes on {self.topic!r}, {self.version.name}>"

    @property
    def retain(self) -> bool:
        """Whether the packets ask to be retained; the reader makes no such runs today."""
        return bool(self.data[0] & RETAIN)

    @property
    def bare(self) -> bool:
        """Whether no packet has properties."""
        return self.payload - self.body <= 1

    @property
    def payload_bytes(self) -> int:
        """Length of each payload, in bytes."""
        return self.stride - self.payload

    def payloads(self) -> list[bytes]:
        """Return every payload, in order."""
        data, size = self.data, self.stride - self.payload
        starts = range(self.payload, len(data) + 1, self.stride)
        return [data[start : start + size] for start in starts]

    def raw(self, index: int = 0) -> bytes:
        """Return the wire bytes of packet `index`, 0 to `count - 1`.

        Raises:
            IndexError: there is no such packet.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"packet {index} of a run of {self.count}")
        start = index * self.stride
        return self.data[start : start + self.stride]

    def packet(self, index: int = 0) -> Publish:
        """Return packet `index` decoded: the slow way, for those who need properties.

        Raises:
            IndexError: there is no such packet.
        """
        # The reader has refused what its peer may not send; the wider role accepts the rest.
        return decode_publish(Cursor(self.raw(index), self.head), self.version, Role.CLIENT)

    def properties(self, index: int = 0) -> Properties:
        """Return the properties of packet `index`.

        Raises:
            IndexError: there is no such packet.
        """
        return self.packet(index).properties
