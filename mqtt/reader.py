"""Bytes of one connection to packets and runs: a pull API without I/O, for both sides.

    reader.feed(data)                     # what a read gave
    while (event := reader.next_event()) is not None:
        ...                               # a packet, a run of messages, or a run of acknowledgements

Rules of this file:
- Nothing a peer sends raises anything but `RemoteProtocolError`; after one the reader is dead.
- INVARIANT: it holds less than `max_packet_bytes` + 5 bytes of an unfinished packet, and of finished
  ones what the last `feed` brought. A packet that is too long is refused on its fixed header.
- Work is linear in the bytes fed, however they are cut.
- Events and errors do not depend on how the bytes are cut, but for the extent of runs.

Theory of operation: a read full of small messages of one topic is the common case, and is one
`Run`. So the loop reads a packet's header once, remembers the topic as legal, and compares the next
packets' headers without looking into them (`mqtt.scan`). Their acknowledgements come back as one
`AckRun`, found in the same way. All else takes the plain way of `mqtt.decode`, a packet at a time; so does
the packet at which a run would become illegal. The plain twin `mqtt.plain` is the oracle in the tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from typing_extensions import override

from mqtt.acks import BARE_BYTES, BARE_LENGTH, FIRST_BYTES as ACK_FIRST_BYTES, AckRun
from mqtt.decode import decode_body
from mqtt.errors import LocalProtocolError, ReasonCode, RemoteProtocolError
from mqtt.identifiers import ID_BYTES, read_ids
from mqtt.known_topics import KnownTopics
from mqtt.order import InboundOrder
from mqtt.packets import Packet, Publish, Role, Version
from mqtt.plain import packet_size
from mqtt.read_run import FIRST_BYTES as RUN_FIRST_BYTES, read_run
from mqtt.runs import Run, run_of
from mqtt.scan import run_end
from mqtt.stretches import Stretch, read_stretches
from mqtt.wire import MAX_VARINT_BYTES, VARINT_BITS, VARINT_MORE, Cursor

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PacketReader", "Role"]

T = TypeVar("T")

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
        allow_v31: whether a client may speak MQTT 3.1; see `Connect.legacy`.
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
        allow_v31: bool = False,
        known_topics: KnownTopics | None = None,
    ) -> None:
        self.version = Version.V5
        self.max_packet_bytes = max_packet_bytes
        self._order = InboundOrder(
            role=role, topic_alias_maximum=topic_alias_maximum, allow_v31=allow_v31
        )
        self._known_topics = KnownTopics() if known_topics is None else known_topics
        self._error: RemoteProtocolError | None = None
        # Either `_data` from `_position` on holds what is not read yet, or `_partial` gathers a
        # packet of `_wanted` bytes that is not complete.
        self._data: bytes = b""
        self._position: int = 0
        self._partial: bytearray = bytearray()
        self._wanted: int = 0
        self._drained: bool = True
        self._hot: bool = False
        """Whether messages may come now: the greeting was seen, the end was not."""

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

    def next_event(self) -> Packet | Run | AckRun | None:
        """Return the next packet or run, or None when more bytes are needed.

        A PUBLISH without RETAIN, DUP and topic alias is always part of a `Run`, and an acknowledgement in
        its shortest form of an `AckRun`.

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

    def next_stretches(self, table: Mapping[bytes, T]) -> list[Stretch[T]]:
        """Return what follows of QoS 0 messages without properties on topics that are in `table`.

        For messages whose topics take turns, so that they make no runs: what goes the same way can be handed on
        as one slice whatever its topics. Nothing is returned, and nothing read, where the next packet is another.

        Args:
            table: topics whose legality is known, behind their two-byte length, to the caller's own value.

        Returns:
            packets back to back with the same value, as many as were found, in order.
        """
        if not self._hot:
            return []
        found, self._position = read_stretches(
            self._data, self._position, self.max_packet_bytes, self.version, table
        )
        return found

    def _read(self, start: int, head: int, end: int) -> Packet | Run | AckRun:
        """Read what begins with the whole packet `data[start:end]`."""
        data = self._data
        first = data[start]
        event: Run | AckRun | None = None
        if first in RUN_FIRST_BYTES:
            if end - head >= _LEAST_TOPIC_BYTES:
                event = read_run(data, start, head, end, self.version, self._known_topics)
                if event is not None:
                    self._position = start + len(event.data)
        elif end - head == BARE_LENGTH and first in ACK_FIRST_BYTES:
            event = self._read_acks(start, end)
        return event or self._read_plain(start, head, end)

    def _die(self, error: RemoteProtocolError) -> None:
        if error.version is not None:
            self.version = error.version
        self._error = error
        self._hot = False
        self._data, self._position = b"", 0
        self._partial.clear()

    def _next_carefully(self) -> Packet | Run | AckRun | None:
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
        packet = order.accept(
            decode_body(cursor, packet_type, order.version, order.role, allow_v31=order.allow_v31)
        )
        self._position = end
        if isinstance(packet, Publish):
            if data[start] in RUN_FIRST_BYTES and packet.raw:
                return run_of(packet, self.version)  # the rare properties `_read_run` leaves
        else:
            self.version = order.version
            self._hot = order.greeted and not order.closed
        return packet

    def _read_acks(self, start: int, end: int) -> AckRun | None:
        """Read the acknowledgements of one type that begin with the bare one `data[start:end]`.

        Returns:
            None, with nothing read, when its identifier is 0.
        """
        data = self._data
        stop = run_end(data, end, BARE_BYTES, data[start : end - ID_BYTES])
        count = (stop - start) // BARE_BYTES
        packet_ids = read_ids(data, end - ID_BYTES, BARE_BYTES, count)
        if 0 in packet_ids:
            packet_ids = packet_ids[: packet_ids.index(0)]
            if not packet_ids:
                return None
        self._position = start + len(packet_ids) * BARE_BYTES
        return AckRun(ACK_FIRST_BYTES[data[start]], packet_ids)
