"""QoS 1 and 2: a publisher with a window, and a subscriber that acknowledges everything it gets.

*Theory of operation.* The publisher's packets are built once, in chunks, so that no packet identifier is in use
twice within the window; acknowledgements come in order (MQTT 4.6.0-2, -3), so counting them is enough. The usual
acknowledgement is four bytes. A read that holds nothing else is counted, or turned into its answers, as a whole; any
other read is walked packet by packet. A QoS 1 subscriber's answers are cut out of the read as a matrix: a row a
message, with the columns of the packet identifier.
"""

from __future__ import annotations

from time import perf_counter_ns

import numpy as np

from benchmarks.blocks import NUMBER_BYTES
from benchmarks.mqtt_session import MqttSession
from benchmarks.roles import AckedPublisher, AckedSubscriber, Span
from benchmarks.stage import await_start, say_ready, say_report
from benchmarks.wire import SOCKET_BYTES, TlsPipe
from mqtt.encode import encode
from mqtt.packets import PacketType, Publish

CHUNK = 64
"""Messages sent in one go; a window holds several."""

ACK_BYTES = 4
"""An acknowledgement without reason and properties: type, length 2, packet identifier."""

PUBACK = PacketType.PUBACK << 4
PUBREC = PacketType.PUBREC << 4
PUBREL = PacketType.PUBREL << 4 | 2
PUBCOMP = PacketType.PUBCOMP << 4
FIRST_FAILURE = 0x80
QOS_2 = 2


def publish_acked(role: AckedPublisher) -> None:
    shape = role.shape
    session = MqttSession(role.login, "bench-pub", shape.version, qos=shape.qos)
    window = min(role.window, session.receive_maximum)
    chunks = _chunks(role, max(1, window // CHUNK))
    acks = Acks(session.pipe)
    say_ready()
    await_start()
    began = perf_counter_ns()
    sent = 0
    while acks.finished < role.messages:
        while sent < role.messages and sent - acks.finished + CHUNK <= max(window, CHUNK):
            session.pipe.send(chunks[sent // CHUNK % len(chunks)])
            sent += CHUNK
        acks.receive()
    say_report(Span(began_ns=began, ended_ns=perf_counter_ns()))
    await_start()
    session.end()


def _chunks(role: AckedPublisher, count: int) -> list[bytes]:
    return [
        b"".join(_packet(role, number) for number in range(first, first + CHUNK))
        for first in range(0, count * CHUNK, CHUNK)
    ]


def _packet(role: AckedPublisher | AckedSubscriber, number: int) -> bytes:
    """Message `number` of the window; its packet identifier is one more."""
    shape = role.shape
    payload = number.to_bytes(NUMBER_BYTES, "big") + bytes(shape.payload_bytes - NUMBER_BYTES)
    message = Publish(topic=role.topic, payload=payload, qos=shape.qos, packet_id=number + 1)
    return encode(message, shape.version)


class Acks:
    """What a broker answers to a publisher.

    Attributes:
        finished: messages with their last acknowledgement.
    """

    def __init__(self, pipe: TlsPipe) -> None:
        self.finished = 0
        self._pipe = pipe
        self._view = memoryview(bytearray(SOCKET_BYTES))
        self._rest = b""

    def receive(self) -> None:
        """Read once, count, and answer every PUBREC."""
        count = self._pipe.receive_into(self._view)
        if not count:
            raise ConnectionError("the broker closed the connection")
        data = self._rest + bytes(self._view[:count])
        self._rest = b""
        plain = len(data) % ACK_BYTES == 0
        packets = len(data) // ACK_BYTES
        if plain and data[::ACK_BYTES].count(PUBACK) == data[1::ACK_BYTES].count(2) == packets:
            self.finished += packets
        else:
            self._walk(data)

    def _walk(self, data: bytes) -> None:
        """The same, packet by packet."""
        at, answers = 0, bytearray()
        while len(data) - at > 1 and len(data) - at >= 2 + data[at + 1]:
            kind, size = data[at], data[at + 1]
            if size > 2 and data[at + 4] >= FIRST_FAILURE:
                raise ConnectionError(f"the broker refused a message: 0x{data[at + 4]:02x}")
            if kind == PUBREC:
                answers += bytes((PUBREL, 2, data[at + 2], data[at + 3]))
            elif kind in (PUBACK, PUBCOMP):
                self.finished += 1
            else:
                raise ConnectionError(f"unexpected packet 0x{kind:02x} {data[at : at + 8].hex()}")
            at += 2 + size
        self._rest = data[at:]
        if answers:
            self._pipe.send(bytes(answers))


def subscribe_acked(role: AckedSubscriber) -> None:
    shape = role.shape
    if role.persistent:  # what a sample that failed may have left behind goes first
        MqttSession(role.login, "bench-sub", shape.version).end()
    session = MqttSession(
        role.login,
        "bench-sub",
        shape.version,
        persistent=role.persistent,
        window=role.window,
        qos=shape.qos,
    )
    session.subscribe([role.topic], qos=shape.qos)
    inbox = Inbox(role, session.pipe)
    say_ready()
    began = 0
    while inbox.finished < role.messages:
        inbox.receive()
        began = began or perf_counter_ns()
    say_report(Span(began_ns=began, ended_ns=perf_counter_ns()))
    await_start()
    session.end()


class Inbox:
    """What a broker sends to a subscriber.

    Attributes:
        finished: messages received; at QoS 2 those released by PUBREL.
    """

    def __init__(self, role: AckedSubscriber, pipe: TlsPipe) -> None:
        self.finished = 0
        self._pipe = pipe
        self._qos = role.shape.qos
        sample = _packet(role, 0)
        self._stride = len(sample)
        self._first_byte = sample[0]
        topic = role.topic.encode()
        self._id_at = sample.index(topic) + len(topic)
        self._view = memoryview(bytearray(SOCKET_BYTES))
        self._rest = b""

    def receive(self) -> None:
        """Read once, count, and answer."""
        count = self._pipe.receive_into(self._view)
        if not count:
            raise ConnectionError("the broker closed the connection")
        data = self._rest + bytes(self._view[:count])
        self._rest = b""
        answers = self._walk(data) if self._qos == QOS_2 else self._cut(data)
        if answers:
            self._pipe.send(answers)

    def _cut(self, data: bytes) -> bytes:
        """PUBACKs for all whole messages of a read."""
        count = len(data) // self._stride
        size = count * self._stride
        self._rest = data[size:]
        rows = np.frombuffer(data, np.uint8, size).reshape(count, self._stride)
        if np.any(rows[:, 0] != self._first_byte):
            raise ValueError("not a message, or one that was sent before")
        acks = np.empty((count, ACK_BYTES), np.uint8)
        acks[:, 0], acks[:, 1] = PUBACK, 2
        acks[:, 2:] = rows[:, self._id_at : self._id_at + 2]
        self.finished += count
        return acks.tobytes()

    def _walk(self, data: bytes) -> bytes:
        """PUBRECs for messages, PUBCOMPs for PUBRELs."""
        at, answers, id_at = 0, bytearray(), self._id_at
        while at < len(data):
            release = data[at] == PUBREL
            size = ACK_BYTES if release else self._stride
            if len(data) - at < size:
                break
            if release:
                answers += bytes((PUBCOMP, 2, data[at + 2], data[at + 3]))
                self.finished += 1
            elif data[at] == self._first_byte:
                answers += bytes((PUBREC, 2, data[at + id_at], data[at + id_at + 1]))
            else:
                raise ValueError("not a message, or one that was sent before")
            at += size
        self._rest = data[at:]
        return bytes(answers)
