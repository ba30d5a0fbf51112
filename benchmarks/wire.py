"""Blocking TLS and prebuilt packets: a generator that does nothing per message while it measures.

*Theory of operation.* OpenSSL writes and reads one record (16 KB) at a time, and `ssl.SSLSocket` makes a
system call (two when reading) for each. Here a record layer between two memory BIOs is used, so that one
system call carries many records: the generator must leave the two cores to the broker it measures.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import cast

import msgspec

from mqtt.encode import encode
from mqtt.packets import (
    Connack,
    Connect,
    Packet,
    Publish,
    Role,
    Suback,
    Subscribe,
    Subscription,
    Version,
)
from mqtt.reader import PacketReader
from mqtt.runs import Run

SOCKET_BYTES = 256 * 1024
RECORD_BYTES = 16 * 1024
BLOCK_BYTES = 128 * 1024
DEADLINE_S = 10.0
ALPN = "mqtt"
NUMBER_BYTES = 4
"""Every payload begins with the number of its packet in the block."""


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """Where a broker listens, and one client's credentials (PEM paths)."""

    host: str
    port: int
    ca: str
    cert: str
    key: str


class TlsPipe:
    """A blocking TLS connection with large system calls."""

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, server_name: str | None
    ) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(DEADLINE_S)
        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._obj = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_name is None,
            server_hostname=server_name,
        )
        while True:
            try:
                self._obj.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except ssl.SSLError:
                self._flush()
                raise
        self._flush()

    def send(self, data: bytes) -> None:
        self._obj.write(data)
        self._flush()

    def receive_into(self, view: memoryview) -> int:
        """Fill `view` with what is there, at least one byte; 0 when the peer closed."""
        got, size = 0, len(view)
        # The stubs know only the form of `read` that returns bytes.
        read = cast("Callable[[int, memoryview], int]", self._obj.read)
        while not got:
            try:
                while got < size:
                    count = read(RECORD_BYTES, view[got:])
                    if not count:
                        return got
                    got += count
            except ssl.SSLWantReadError:
                if not got:
                    self._fill()
            except ssl.SSLZeroReturnError:
                return got
        return got

    def receive_exactly(self, view: memoryview) -> None:
        got = 0
        while got < len(view):
            count = self.receive_into(view[got:])
            if not count:
                raise ConnectionError("the broker closed the connection")
            got += count

    def close(self) -> None:
        self._sock.close()

    def _fill(self) -> None:
        data = self._sock.recv(SOCKET_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._sock.sendall(self._outgoing.read())


def dial(login: Login) -> TlsPipe:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(login.ca)
    context.load_cert_chain(login.cert, login.key)
    context.set_alpn_protocols([ALPN])
    sock = socket.create_connection((login.host, login.port), timeout=DEADLINE_S)
    return TlsPipe(sock, context, login.host)


class Session:
    """An MQTT session on a pipe: the part before the timed region, with the real packet reader."""

    def __init__(self, login: Login, client_id: str, version: Version) -> None:
        """Connect and wait for a successful CONNACK."""
        self.pipe = dial(login)
        self._version = version
        self.reader = PacketReader(role=Role.CLIENT, max_packet_bytes=SOCKET_BYTES)
        self.reader.version = version
        answer = self._ask(Connect(client_id=client_id, version=version))
        if not isinstance(answer, Connack) or answer.reason.failed:
            raise ConnectionError(f"CONNECT was answered by {answer}")

    def subscribe(self, topic_filter: str) -> None:
        """Subscribe with QoS 0 and wait for the grant."""
        wanted = (Subscription(filter=topic_filter),)
        answer = self._ask(Subscribe(packet_id=1, filters=wanted))
        if not isinstance(answer, Suback) or answer.reasons[0].failed:
            raise ConnectionError(f"SUBSCRIBE was answered by {answer}")

    def _ask(self, packet: Packet) -> Packet | Run:
        """Send and read one packet; only while the broker has no reason to send another behind it."""
        self.pipe.send(encode(packet, self._version))
        buffer = memoryview(bytearray(SOCKET_BYTES))
        while (event := self.reader.next_event()) is None:
            count = self.pipe.receive_into(buffer)
            if not count:
                raise ConnectionError("the broker closed the connection")
            self.reader.feed(bytes(buffer[:count]))
        if self.reader.next_event() is not None:
            raise ConnectionError("the broker said more than it was asked for")
        return event


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent: `topics` 1 makes long runs, 2 (to 26) makes every message a run of its own."""

    payload_bytes: int
    topics: int = 1
    version: Version = Version.V5

    @property
    def topic_names(self) -> list[str]:
        return [f"bench/{chr(ord('a') + number)}" for number in range(self.topics)]


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Equally long QoS 0 packets back to back; payloads begin with the packet's number in the block."""

    data: bytes
    stride: int
    count: int

    def packet(self, number: int) -> bytes:
        start = number % self.count * self.stride
        return self.data[start : start + self.stride]


def build_block(shape: Shape) -> Block:
    """Build about `BLOCK_BYTES` of packets whose topics take turns."""
    topics = shape.topic_names
    padding = bytes(shape.payload_bytes - NUMBER_BYTES)
    packets: list[bytes] = []
    size = 0
    while size < BLOCK_BYTES or len(packets) % len(topics):
        number = len(packets)
        payload = number.to_bytes(NUMBER_BYTES, "big") + padding
        message = Publish(topic=topics[number % len(topics)], payload=payload)
        packets.append(encode(message, shape.version))
        size += len(packets[-1])
    return Block(data=b"".join(packets), stride=len(packets[0]), count=len(packets))
