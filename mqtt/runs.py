"""A run: messages of one topic that differ in little but their payload, held as one slice of bytes.

A run is the unit of work of the data path: it is authorized, counted, forwarded and acknowledged as
a whole. `Run` is a view of bytes that the reader has verified completely; nothing here checks again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from typing_extensions import override

from mqtt.decode import decode_packet, decode_publish
from mqtt.encode import encode_publish
from mqtt.errors import LocalProtocolError
from mqtt.identifiers import ID_BYTES, read_ids
from mqtt.packets import Publish, Role, Version
from mqtt.spans import expiry_span
from mqtt.wire import Cursor

RETAIN: Final = 0x01
DUP: Final = 0x08
"""Bits of a PUBLISH's first byte (3.3.1)."""


class Run:
    """One or more PUBLISH packets, back to back, equal in all but identifier, properties and payload.

    All packets have the same fixed header, topic, property length and Message Expiry Interval, so
    that every offset below holds in each of them. Treat it as immutable.

    Attributes:
        data: the packets' wire bytes; at QoS 0 a subscriber of the same version can have them as they are.
        stride: bytes of one packet, fixed header included; `len(data) == stride * count`.
        count: packets, at least 1.
        head: offset in a packet where the variable header (the topic's length) begins.
        topic: the topic name as on the wire; equal topics of one reader are the same object.
        body: offset in a packet just behind the topic; at QoS 1 and 2 the packet identifier stands here.
        properties: offset in a packet behind that; in 5.0 the property length stands here, in 3.1.1
            the payload.
        payload: offset in a packet where the payload begins; equals `stride` when it is empty.
        version: the version in which `data` is written.
        qos: 0, 1 or 2.
    """

    __slots__ = (
        "body",
        "count",
        "data",
        "head",
        "payload",
        "properties",
        "qos",
        "stride",
        "topic",
        "version",
    )

    def __init__(  # noqa: PLR0917 - positional, because one is built for each run on the hot path
        self,
        data: bytes,
        stride: int,
        count: int,
        head: int,
        topic: bytes,
        body: int,
        properties: int,
        payload: int,
        version: Version,
        qos: int,
    ) -> None:
        self.data = data
        self.stride = stride
        self.count = count
        self.head = head
        self.topic = topic
        self.body = body
        self.properties = properties
        self.payload = payload
        self.version = version
        self.qos = qos

    @classmethod
    def parse(cls, packet: bytes, version: Version) -> Run:
        """Return one encoded PUBLISH as a run of one.

        Args:
            packet: exactly one packet, without a topic alias.
            version: the version it is written in.

        Raises:
            RemoteProtocolError: the bytes break a rule of MQTT.
            LocalProtocolError: they are another packet, or use a topic alias.
        """
        decoded = decode_packet(packet, version, Role.CLIENT)
        if not isinstance(decoded, Publish) or not decoded.raw:
            raise LocalProtocolError("only a PUBLISH without a topic alias is a run")
        return _of_wire(packet, decoded, version)

    def repeated(self, data: bytes, count: int) -> Run:
        """Return a run of other packets with this one's header, topic and offsets.

        Args:
            data: `count` packets, back to back. INVARIANT, the caller's: they differ from this run's in
                packet identifier, payload and the values of properties only, and those are legal.
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
            data,
            self.stride,
            count,
            self.head,
            self.topic,
            self.body,
            self.properties,
            self.payload,
            self.version,
            self.qos,
        )

    @override
    def __repr__(self) -> str:
        form = f"QoS {self.qos}, {self.version.name}"
        return f"<Run of {self.count} x {self.stride} bytes on {self.topic!r}, {form}>"

    @property
    def retain(self) -> bool:
        """Whether the packets have the RETAIN flag; the reader makes no such runs today."""
        return bool(self.data[0] & RETAIN)

    @property
    def bare(self) -> bool:
        """Whether no packet has properties."""
        return self.payload - self.properties <= 1

    @property
    def payload_bytes(self) -> int:
        """Length of each payload, in bytes."""
        return self.stride - self.payload

    @property
    def expiry_interval(self) -> int | None:
        """Message Expiry Interval of every packet, in seconds; None when they have none."""
        if self.bare:
            return None
        start, end = expiry_span(self.data, self.properties)
        return int.from_bytes(self.data[start:end]) if end > start else None

    def packet_ids(self) -> list[int]:
        """Return the packet identifiers, in order; none at QoS 0."""
        return read_ids(self.data, self.body, self.stride, self.count) if self.qos else []

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


def run_of(publish: Publish, version: Version) -> Run:
    """Return a message as a run of one, without the DUP flag.

    Args:
        publish: any message with its topic, received or made here. At QoS 1 and 2 it gets packet
            identifier 1 if it has none.
        version: the version the run shall be written in; to 3.1.1 properties are dropped.

    Raises:
        LocalProtocolError: MQTT does not allow such a message.
    """
    if publish.raw and publish.raw_version is version:
        wire = publish.raw
        if publish.dup:
            wire = bytes((wire[0] & ~DUP,)) + wire[1:]
        return _of_wire(wire, publish, version)
    packet_id = (publish.packet_id or 1) if publish.qos else None
    if publish.properties.topic_alias is not None:
        raise LocalProtocolError("a topic alias means nothing on another connection")
    plain = replace(publish, dup=False, packet_id=packet_id)
    return _of_wire(encode_publish(plain, version), plain, version)


def _of_wire(wire: bytes, publish: Publish, version: Version) -> Run:
    cursor = Cursor(wire, 1)
    cursor.varint("remaining length")
    head, topic = cursor.position, publish.topic_bytes
    body = head + 2 + len(topic)
    properties = body + (ID_BYTES if publish.qos else 0)
    payload = len(wire) - len(publish.payload)
    return Run(wire, len(wire), 1, head, topic, body, properties, payload, version, publish.qos)
