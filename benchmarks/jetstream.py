"""JetStream with file storage, in NATS's own protocol: what durable messages are there.

*Theory of operation.* The publisher asks for an acknowledgement of every message on its own inbox and keeps a window
of them open, the consumer is durable, gets messages pushed, and acknowledges each (`ack_policy` explicit): the counterparts of
QoS 1 and of a persistent session. Acknowledgements are lines of different lengths, so both sides look at
every line; a publisher only counts them.
"""

from __future__ import annotations

from time import perf_counter_ns

from benchmarks.blocks import NUMBER_BYTES, nats_subject
from benchmarks.nats_session import INBOX, PING, NatsSession
from benchmarks.roles import Span, StreamConsumer, StreamPublisher
from benchmarks.stage import await_start, say_ready, say_report
from benchmarks.wire import SOCKET_BYTES, TlsPipe

STREAM, CONSUMER = "BENCH", "WORK"
DELIVERY = "_INBOX.bench.deliver"
CHUNK = 64
CRLF = b"\r\n"


def publish_stream(role: StreamPublisher) -> None:
    session = NatsSession(role.login)
    session.subscribe([f"{INBOX}.acks"])
    subject = nats_subject(role.topic)
    head = f"PUB {subject} {INBOX}.acks {role.shape.payload_bytes}\r\n".encode()
    padding = bytes(role.shape.payload_bytes - NUMBER_BYTES)
    chunk = b"".join(
        head + number.to_bytes(NUMBER_BYTES, "big") + padding + CRLF for number in range(CHUNK)
    )
    lines = _Lines(session.pipe)
    say_ready()
    await_start()
    began = perf_counter_ns()
    sent = acked = 0
    while acked < role.messages:
        while sent < role.messages and sent - acked + CHUNK <= max(role.window, CHUNK):
            session.pipe.send(chunk)
            sent += CHUNK
        acked += _count_acks(lines.receive())
    say_report(Span(began_ns=began, ended_ns=perf_counter_ns()))
    await_start()


def _count_acks(data: bytes) -> int:
    """Acknowledgements in whole lines: each is a `MSG` line and a line of JSON."""
    if b'"error"' in data or b"-ERR" in data:
        raise ConnectionError(f"JetStream refused a message: {data[:300]!r}")
    return data.count(b'{"stream":')


class _Lines:
    """Whole lines out of reads."""

    def __init__(self, pipe: TlsPipe) -> None:
        self._pipe = pipe
        self._view = memoryview(bytearray(SOCKET_BYTES))
        self._rest = b""

    def receive(self) -> bytes:
        """Read once; return what is complete up to the last end of a line."""
        count = self._pipe.receive_into(self._view)
        if not count:
            raise ConnectionError("the NATS server closed the connection")
        data = self._rest + bytes(self._view[:count])
        end = data.rfind(CRLF) + len(CRLF)
        if end < len(CRLF):
            end = 0
        self._rest = data[end:]
        return data[:end]


def consume_stream(role: StreamConsumer) -> None:
    control = NatsSession(role.login)
    _make_stream(control, role)
    try:
        session = NatsSession(role.login)
        session.subscribe([DELIVERY])
        _make_consumer(control, role)
        say_ready()
        began, left = 0, role.messages
        messages = _Messages(session.pipe, role.shape.payload_bytes)
        while left > 0:
            left -= messages.receive()
            began = began or perf_counter_ns()
        say_report(Span(began_ns=began, ended_ns=perf_counter_ns()))
        await_start()
    finally:
        control.request(f"$JS.API.STREAM.DELETE.{STREAM}", {})


def _make_stream(control: NatsSession, role: StreamConsumer) -> None:
    control.request(
        f"$JS.API.STREAM.CREATE.{STREAM}",
        {
            "name": STREAM,
            "subjects": [nats_subject(role.topic)],
            "storage": "file",
            "retention": "limits",
            "num_replicas": 1,
        },
    )


def _make_consumer(control: NatsSession, role: StreamConsumer) -> None:
    control.request(
        f"$JS.API.CONSUMER.DURABLE.CREATE.{STREAM}.{CONSUMER}",
        {
            "stream_name": STREAM,
            "config": {
                "durable_name": CONSUMER,
                "deliver_subject": nats_subject(DELIVERY),
                "deliver_policy": "all",
                "ack_policy": "explicit",
                "ack_wait": 60_000_000_000,  # nanoseconds: nothing is sent again within a sample
                "max_ack_pending": role.window,
            },
        },
    )


class _Messages:
    """Messages that a consumer is pushed: `MSG subject sid reply size`, the payload, and where to acknowledge."""

    def __init__(self, pipe: TlsPipe, payload_bytes: int) -> None:
        self._pipe = pipe
        self._view = memoryview(bytearray(SOCKET_BYTES))
        self._rest = b""
        self._body = payload_bytes + len(CRLF)

    def receive(self) -> int:
        """Read once, acknowledge what is complete, return how many that were."""
        count = self._pipe.receive_into(self._view)
        if not count:
            raise ConnectionError("the NATS server closed the connection")
        data = self._rest + bytes(self._view[:count])
        at = 0
        acks: list[bytes] = []
        while (end := data.find(CRLF, at)) >= 0:
            if data.startswith(PING, at):
                at += len(PING)
                continue
            following = end + len(CRLF) + self._body
            if following > len(data):
                break
            reply = data[at:end].split(b" ")[3]
            acks.append(b"PUB %b 4\r\n+ACK\r\n" % reply)
            at = following
        self._rest = data[at:]
        if acks:
            self._pipe.send(b"".join(acks))
        return len(acks)
