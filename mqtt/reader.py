"""Bytes of one connection to packets and runs: a pull API without I/O, for both sides.

    reader.feed(data)                     # what a read gave
    while (event := reader.next_event()) is not None:
        ...                               # a packet, or a run of QoS 0 messages

Rules of this file:
- Nothing a peer sends raises anything but `RemoteProtocolError`; after one the reader is dead.
- INVARIANT: it holds less than `max_packet_bytes` + 5 bytes of an unfinished packet, and of finished
  ones what the last `feed` brought. A packet that is too long is refused on its fixed header.
- Work is linear in the bytes fed, however they are cut.
- Events and errors do not depend on how the bytes are cut, but for the extent of runs.

Theory of operation: a read full of small messages of one topic is the common case, and is one
`Run`. So the loop reads a packet's header once, remembers the topic as legal, and compares the next
packets' headers without looking into them (`mqtt.scan`). All else takes the plain way of `mqtt.decode`,
a packet at a time. The plain twin `mqtt.plain` is the oracle in the tests.
"""

from __future__ import annotations

from typing import Final

from typing_extensions import override

from mqtt.decode import decode_body
from mqtt.errors import LocalProtocolError, ReasonCode, RemoteProtocolError
from mqtt.known_topics import KnownTopics
from mqtt.order import InboundOrder
from mqtt.packets import Packet, Publish, Role, Version
from mqtt.plain import packet_size
from mqtt.runs import Run
from mqtt.scan import is_ordinary_section, run_end
from mqtt.spans import correlation_span
from mqtt.wire import MAX_VARINT_BYTES, VARINT_BITS, VARINT_MORE, Cursor

__all__ = ["PacketReader", "Role"]

_PUBLISH_QOS_0: Final = 0x30
"""First byte of a PUBLISH with QoS 0, no RETAIN, no DUP (3.3.1)."""
_MAX_FIXED_HEADER_BYTES: Final = 1 + MAX_VARINT_BYTES
_LEAST_PACKET_BYTES: Final = 2
_LEAST_TOPIC_BYTES: Final = 3
"""The length of a topic and its first byte; a shorter PUBLISH is an error or uses an alias."""


class PacketReader:
    """Reads what the peer of one connection sends.

    Args:
        role: which end we are.
        max_packet_bytes: the longest packet accepted, fixed header included.
        topic_alias_maximum: what we announced to the peer; 0 means no aliases.
        known_topics: a table to share between readers of one thread; own one if None.

    Attributes:
        version: the connection's version. A server learns it from CONNECT, also from one that is
            refused; a client sets it before the first `feed`.
        max_packet_bytes: may be changed between events.
    """

    def __init__(
        self,
        *,
        role: Role,
        max_packet_bytes: int,
        topic_alias_maximum: int = 0,
        known_topics: KnownTopics | None = None,
    ) -> None:
        self.version = Version.V5
        self.max_packet_bytes = max_packet_bytes
        self._order = InboundOrder(role=role, topic_alias_maximum=topic_alias_maximum)
        self._known_topics = KnownTopics() if known_topics is None else known_topics
        self._topics = self._known_topics.names
        self._error: RemoteProtocolError | None = None
        # Either `_data` from `_position` on holds what is not read yet, or `_partial` gathers a
        # packet of `_wanted` bytes that is not complete.
        self._data: bytes = b""
        self._position: int = 0
        self._partial: bytearray = bytearray()
        self._wanted: int = 0
        self._drained: bool = True
        self._hot: bool = False
        """Whether QoS 0 messages may come now: the greeting was seen, the end was not."""

    @override
    def __repr__(self) -> str:
        state = "dead" if self._error else "closed" if self._order.closed else "open"
        role = self._order.role.name.lower()
        return f"<PacketReader {role} {self.version.name} {state}, {self.pending_bytes} pending>"

    @property
    def pending_bytes(self) -> int:
        """Bytes fed and not given out yet."""
        return len(self._partial) + len(self._data) - self._position

    def feed(self, data: bytes) -> None:
        """Add the bytes of one read.

        Args:
            data: kept as it is, without a copy, when nothing is pending.

        Raises:
            LocalProtocolError: `next_event` has not returned None since the last call.
        """
        if not data or self._error is not None or self._order.closed:
            return
        if not self._drained:
            raise LocalProtocolError("`feed` before `next_event` returned None")
        if self._partial:
            self._partial += data
            if len(self._partial) < self._wanted:
                return
            self._data, self._position = bytes(self._partial), 0
            self._partial.clear()
        elif self._position == len(self._data):
            self._data, self._position = data, 0
        elif len(self._data) - self._position + len(data) < self._wanted:
            self._partial += memoryview(self._data)[self._position :]
            self._partial += data
            self._data, self._position = b"", 0
            return
        else:
            self._data, self._position = self._data[self._position :] + data, 0
        self._drained = False

    def next_event(self) -> Packet | Run | None:
        """Return the next packet or run, or None when more bytes are needed.

        A QoS 0 PUBLISH without RETAIN and topic alias is always part of a `Run`.

        Raises:
            RemoteProtocolError: the peer broke the protocol; every later call raises it again.
        """
        try:
            data, start = self._data, self._position
            size = len(data)
            # Hot path: a whole packet, once greeted, whose remaining length takes one or two bytes.
            if not self._hot or size - start < _LEAST_PACKET_BYTES:
                return self._next_carefully()
            head = start + 2
            remaining = data[start + 1]
            if remaining >= VARINT_MORE:
                high = data[head] if head < size else 0
                if not 0 < high < VARINT_MORE:
                    return self._next_carefully()
                head += 1
                remaining = remaining & VARINT_BITS | high << 7
            end = head + remaining
            if end > size or end - start > self.max_packet_bytes:
                return self._next_carefully()
            return self._read(start, head, end)
        except RemoteProtocolError as error:
            self._die(error)
            raise

    def _read(self, start: int, head: int, end: int) -> Packet | Run:
        """Read what begins with the whole packet `data[start:end]`."""
        if self._data[start] == _PUBLISH_QOS_0 and end - head >= _LEAST_TOPIC_BYTES:
            return self._read_run(start, head, end) or self._read_plain(start, head, end)
        return self._read_plain(start, head, end)

    def _die(self, error: RemoteProtocolError) -> None:
        if error.version is not None:
            self.version = error.version
        self._error = error
        self._hot = False
        self._data, self._position = b"", 0
        self._partial.clear()

    def _next_carefully(self) -> Packet | Run | None:
        """Find the next packet in any state."""
        if self._error is not None:
            raise self._error
        start = self._position
        if self._order.closed:
            self._data, self._position = b"", 0
        elif start < len(self._data):
            self._order.version = self.version
            self._order.verify_first_byte(self._data[start])
            size = packet_size(self._data[start : start + _MAX_FIXED_HEADER_BYTES])
            self._wanted = size or 0
            if size is not None and self._verify_size(size) <= len(self._data) - start:
                return self._read(start, self._head(start), start + size)
        self._drained = True
        return None

    def _verify_size(self, size: int) -> int:
        if size > self.max_packet_bytes:
            raise RemoteProtocolError(
                f"packet of {size} bytes is longer than {self.max_packet_bytes}",
                ReasonCode.PACKET_TOO_LARGE,
            )
        return size

    def _head(self, start: int) -> int:
        """Return where the variable header of the whole packet at `start` begins."""
        head = start + 1
        while self._data[head] >= VARINT_MORE:
            head += 1
        return head + 1

    def _read_plain(self, start: int, head: int, end: int) -> Packet | Run:
        """Read one packet without assuming anything."""
        order, data = self._order, self._data
        packet_type = order.verify_first_byte(data[start])
        cursor = Cursor(data[start:end], head - start)
        packet = order.accept(decode_body(cursor, packet_type, order.version, order.role))
        self._position = end
        if isinstance(packet, Publish):
            if data[start] == _PUBLISH_QOS_0 and packet.raw:
                return self._run_of_one(packet, head - start)
        else:
            self.version = order.version
            self._hot = order.greeted and not order.closed
        return packet

    def _run_of_one(self, packet: Publish, head: int) -> Run:
        """Return a message that was decoded as a run, for the rare properties `_read_run` leaves."""
        topic, stride = packet.topic_bytes, len(packet.raw)
        payload = stride - len(packet.payload)
        body = head + 2 + len(topic)
        return Run(packet.raw, stride, 1, head, topic, body, payload, self.version)

    def _read_run(self, start: int, head: int, end: int) -> Run | None:
        """Read the run that begins with the packet `data[start:end]`.

        Returns:
            None, with nothing read, when the packet must take the plain way: it is illegal, or has
            an alias or other properties that need more than a look.
        """
        data = self._data
        body = head + 2 + (data[head] << 8 | data[head + 1])
        if body > end:
            return None
        key = data[head:body]
        topic = self._topics.get(key)
        if topic is None:
            if body == head + 2:
                return None
            topic = self._known_topics.learn(key)
        version = self.version
        payload = properties = body
        if version is Version.V5:
            if body == end:
                return None
            payload = properties = body + 1
            if data[body]:
                properties, payload = self._section(body, end)
                if payload > end or not self._is_ordinary(properties, payload):
                    return None
        stride = end - start
        stop = end
        # Most runs of one are seen by the first comparison, or by the end of the read.
        header = data[start:properties]
        if data.startswith(header, end):
            if payload == properties:
                stop = run_end(data, end, stride, header)
            else:
                stop = self._ordinary_end(start, end, body)
        self._position = stop
        return Run(
            data[start:stop],
            stride,
            (stop - start) // stride,
            head - start,
            topic,
            body - start,
            payload - start,
            version,
        )

    def _section(self, body: int, end: int) -> tuple[int, int]:
        """Return where the properties at `body` begin and end; behind `end` if that is illegal."""
        data, length, position = self._data, 0, body
        for index in range(MAX_VARINT_BYTES):
            if position >= end:
                break
            byte = data[position]
            position += 1
            length |= (byte & VARINT_BITS) << 7 * index
            if byte < VARINT_MORE:
                return (position, position + length) if byte or not index else (end, end + 1)
        return end, end + 1

    def _is_ordinary(self, properties: int, payload: int) -> bool:
        return is_ordinary_section(self._data, properties, payload, self._known_topics.learn)

    def _ordinary_end(self, start: int, end: int, body: int) -> int:
        """Return where the run with properties ends whose first packet is `data[start:end]`."""
        data, stride = self._data, end - start
        # Often packets differ in correlation data alone; then the first one's properties stand for all.
        properties, payload = self._section(body, end)
        span_start, span_end = correlation_span(data[start:end], body - start)
        tail = data[start + span_end : payload]
        stop = run_end(data, end, stride, data[start : start + span_start], tail, span_end)
        last = len(data) - stride
        header = data[start:properties]
        while stop <= last and data.startswith(header, stop):
            offset = stop - start
            if not self._is_ordinary(properties + offset, payload + offset):
                break
            stop += stride
        return stop
