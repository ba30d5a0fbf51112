"""Clients that are a burden, and what a broker says of itself and takes while it bears them.

    async with rough(broker, "bench") as stuck:
        await stuck.enter()
        await stuck.subscribe("bench/flood")  # and never reads again

*Rules of this file.* Nothing is read, acknowledged or decoded but by the test. Every wait has a deadline. What is sent and
received is counted in whole packets of one size, so that a flood costs the test less than the broker.
"""

from __future__ import annotations

import http.client
import resource
import socket
import time
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio
from prometheus_client.parser import text_string_to_metric_families

from certs.contexts import client_context
from mqtt.encode import encode
from mqtt.errors import ReasonCode
from mqtt.identifiers import write_ids
from mqtt.packets import (
    Connack,
    Connect,
    Packet,
    Puback,
    Publish,
    Role,
    Suback,
    Subscribe,
    Subscription,
    Version,
)
from mqtt.plain import PlainReader
from tests.e2e.clients import endpoint, unique
from tests.e2e.scripted_client import Broker, ScriptedClient, broker_of, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from tests.e2e.daemons import Daemon, Site

PATIENCE_S: Final = 20.0
"""How long anything may take under load; two busy cores need a few seconds for the longest."""

POLL_S: Final = 0.05
BLOCK_BYTES: Final = 64 * 1024
NUMBER_BYTES: Final = 8
PAGE_BYTES: Final = resource.getpagesize()
CONNECTING: Final = 32
"""Handshakes of a crowd at the same time: fewer than the broker allows one address."""

SMALL_BUFFER_BYTES: Final = 16 * 1024
"""Receive buffer of a client that reads late: what the kernel holds is not what is tested."""


# ---- the broker --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A broker of the test's own.

    Attributes:
        site: its folder.
        daemon: its process.
        at: how clients reach it.
    """

    site: Site
    daemon: Daemon
    at: Broker

    @property
    def rss_bytes(self) -> int:
        """The memory it holds now."""
        fields = Path(f"/proc/{self.daemon.process.pid}/statm").read_text().split()
        return int(fields[1]) * PAGE_BYTES

    async def figures(self) -> Figures:
        """Its metrics page."""
        return Figures(await trio.to_thread.run_sync(_page, self.site))

    async def until(self, seen: Callable[[Figures], bool]) -> Figures:
        """Its metrics page as soon as `seen` is true of it."""
        deadline = trio.current_time() + PATIENCE_S
        while not seen(figures := await self.figures()):
            assert trio.current_time() < deadline, f"not seen within {PATIENCE_S:g} s"
            await trio.sleep(POLL_S)
        return figures


class Figures:
    """A metrics page."""

    def __init__(self, page: str) -> None:
        self._samples = [
            sample for family in text_string_to_metric_families(page) for sample in family.samples
        ]

    def __getitem__(self, name: str) -> float:
        """The value of a figure without labels, by its name after `stockade_`."""
        (value,) = [s.value for s in self._samples if s.name == f"stockade_{name}"]
        return value

    def dropped(self, reason: str) -> float:
        """Messages not delivered, for a reason."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == "stockade_messages_dropped_total"
            and sample.labels["reason"] == reason
        )


def _page(site: Site) -> str:
    files = site.pki.clients["admin"]
    context = client_context(
        certificate=files.certificate, key=files.key, ca=site.pki.ca, alpn=["http/1.1"]
    )
    host, port = endpoint(site.addresses["metrics"])
    connection = http.client.HTTPSConnection(host, port, context=context, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        body = answer.read().decode()
    finally:
        connection.close()
    assert answer.status == http.client.OK, body
    return body


@contextmanager
def loaded(site: Site, tables: str) -> Generator[Loaded]:
    """A broker with these tables in its configuration, ended with the block; its log holds no traceback.

    Args:
        site: with a controller that runs.
        tables: TOML, `[limits]` and others.
    """
    site.limits = tables
    name = unique("broker")
    daemon = site.start_broker(name, kernel_bundles=())
    try:
        yield Loaded(site=site, daemon=daemon, at=broker_of(site))
    finally:
        daemon.stop()
    assert "Traceback" not in daemon.log.read_text()


# ---- packets -----------------------------------------------------------------------------------


def packets(topic: str, size: int, first: int, count: int, *, qos: int = 0) -> bytes:
    """PUBLISH packets of one size whose payload ends in their number; identifiers are 1 to `count`.

    Args:
        topic: of all of them.
        size: of a payload, in bytes; at least `NUMBER_BYTES`.
        first: number of the first.
        count: how many.
        qos: of all of them.
    """
    publish = Publish(topic=topic, payload=bytes(size), qos=qos, packet_id=1 if qos else None)
    one = encode(publish, Version.V5)
    out = bytearray(one * count)
    for number in range(count):
        end = (number + 1) * len(one)
        out[end - NUMBER_BYTES : end] = (first + number).to_bytes(NUMBER_BYTES)
    if qos:
        write_ids(out, len(one) - size - 3, len(one), range(1, count + 1))
    return bytes(out)


def numbers(data: bytes, packet_bytes: int) -> list[int]:
    """The numbers of packets of one size, whole ones."""
    ends = range(packet_bytes, len(data) + 1, packet_bytes)
    return [int.from_bytes(data[end - NUMBER_BYTES : end]) for end in ends]


# ---- clients -----------------------------------------------------------------------------------


class Rough:
    """One connection."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream
        self._version = Version.V5
        self._reader = PlainReader(role=Role.CLIENT, max_packet_bytes=BLOCK_BYTES)

    async def enter(self, connect: Connect | None = None) -> Connack:
        """Send CONNECT, as a new client unless told otherwise; the broker must accept it."""
        connect = connect or Connect(client_id=unique("rough"))
        self._version = connect.version
        await self.send(encode(connect, self._version))
        connack = await self._one()
        assert isinstance(connack, Connack), connack
        assert not connack.reason.failed, connack
        return connack

    async def subscribe(self, topic: str, *, qos: int = 0) -> None:
        """Subscribe; nothing may come before the answer."""
        wanted = Subscribe(packet_id=1, filters=(Subscription(filter=topic, qos=qos),))
        await self.send(encode(wanted, self._version))
        suback = await self._one()
        assert isinstance(suback, Suback), suback
        assert not any(reason.failed for reason in suback.reasons), suback

    async def _one(self) -> Packet:
        """The next packet, behind which nothing has come."""
        packet = await self.receive()
        assert self._reader.next_event() is None
        return packet

    async def receive(self) -> Packet:
        """The next packet; not to be mixed with `read`."""
        packet = await self.receive_or_end()
        assert packet is not None, "the broker ended the connection"
        return packet

    async def receive_or_end(self) -> Packet | None:
        """The next packet, None at the end; not to be mixed with `read`."""
        self._reader.version = self._version
        while (packet := self._reader.next_event()) is None:
            data = await self.read_or_end()
            if not data:
                return None
            self._reader.feed(data)
        return packet

    async def send(self, data: bytes) -> None:
        """Send bytes, however long the broker lets us wait."""
        with trio.fail_after(PATIENCE_S):
            await self._stream.send_all(data)

    async def read(self) -> bytes:
        """What comes next; not the end."""
        data = await self.read_or_end()
        assert data, "the broker ended the connection"
        return data

    async def read_or_end(self) -> bytes:
        """What comes next; nothing at the end."""
        with trio.fail_after(PATIENCE_S):
            try:
                return bytes(await self._stream.receive_some(BLOCK_BYTES))
            except trio.BrokenResourceError:
                return b""

    async def read_bytes(self, count: int) -> bytes:
        """So many bytes, and no more."""
        parts: list[bytes] = []
        while count:
            with trio.fail_after(PATIENCE_S):
                data = bytes(await self._stream.receive_some(min(count, BLOCK_BYTES)))
            assert data, "the broker ended the connection"
            parts.append(data)
            count -= len(data)
        return b"".join(parts)


@asynccontextmanager
async def rough(
    broker: Broker, principal: str, *, receive_buffer_bytes: int | None = None
) -> AsyncGenerator[Rough]:
    """A TLS connection of a principal, without CONNECT; dropped at the end.

    Args:
        broker: where to connect.
        principal: whose certificate to show.
        receive_buffer_bytes: how much the kernel holds for it; None: what it likes.
    """
    sock = trio.socket.socket()
    if receive_buffer_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    with trio.fail_after(PATIENCE_S):
        await sock.connect((broker.host, broker.port))
        stream = trio.SSLStream(
            trio.SocketStream(sock),
            broker.contexts[principal],
            server_hostname=broker.host,
            https_compatible=True,
        )
        await stream.do_handshake()
    try:
        yield Rough(stream)
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def crowd(
    broker: Broker, principal: str, count: int, *, at_once: int = CONNECTING
) -> AsyncGenerator[list[Rough]]:
    """Many connections of a principal that read late or never, without CONNECT; dropped at the end.

    Args:
        broker: where to connect.
        principal: whose certificate to show.
        count: how many.
        at_once: how many shake hands at the same time.
    """
    async with trio.open_nursery() as nursery:
        clients: list[Rough] = []
        places = trio.CapacityLimiter(at_once)
        leaving = trio.Event()

        async def stay(task_status: trio.TaskStatus[Rough] = trio.TASK_STATUS_IGNORED) -> None:
            async with rough(broker, principal, receive_buffer_bytes=SMALL_BUFFER_BYTES) as client:
                task_status.started(client)
                await leaving.wait()

        async def arrive() -> None:
            async with places:
                clients.append(await nursery.start(stay))

        async with trio.open_nursery() as arriving:
            for _ in range(count):
                arriving.start_soon(arrive)
        yield clients
        leaving.set()


class Flood:
    """A publisher that sends as fast as it is let: at QoS 1 the next block when the last one was answered.

    Attributes:
        sent: messages the broker's or our kernel has taken.
        answers: at QoS 1, by reason.
    """

    def __init__(self, client: Rough, topic: str, size: int, *, qos: int = 0) -> None:
        self._client = client
        self._count = max(BLOCK_BYTES // (size + 64), 1)
        self._topic, self._size, self._qos = topic, size, qos
        self.sent = 0
        self.answers: Counter[ReasonCode] = Counter()

    def total(self, blocks: int) -> int:
        """Messages in so many blocks."""
        return blocks * self._count

    async def run(self, blocks: int | None = None) -> None:
        """Send so many blocks, or for ever."""
        while blocks is None or blocks > 0:
            data = packets(self._topic, self._size, self.sent, self._count, qos=self._qos)
            await self._client.send(data)
            self.sent += self._count
            if self._qos:
                await self._hear()
            blocks = None if blocks is None else blocks - 1
            await trio.lowlevel.checkpoint()

    async def goes_on(self) -> None:
        """Wait until one more block was taken: the broker holds a publisher back, but lets it go on."""
        sent = self.sent
        with trio.fail_after(PATIENCE_S):
            while self.sent == sent:
                await trio.sleep(POLL_S)

    async def _hear(self) -> None:
        for _ in range(self._count):
            answer = await self._client.receive()
            assert isinstance(answer, Puback), answer
            self.answers[answer.reason] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two well-behaved clients that talk to each other at QoS 1."""

    speaker: ScriptedClient
    listener: ScriptedClient
    topic: str

    async def talk(self, trips: int) -> float:
        """So many messages, each received and acknowledged before the next; how long the slowest took, in seconds."""
        slowest = 0.0
        for number in range(trips):
            begin = time.monotonic()
            payload = str(number).encode()
            reason = await self.speaker.publish(self.topic, payload, qos=1)
            assert not reason.failed, reason
            assert (await self.listener.take()).payload == payload
            await self.speaker.ping()
            slowest = max(slowest, time.monotonic() - begin)
        return slowest


@asynccontextmanager
async def pair(broker: Broker) -> AsyncGenerator[Pair]:
    """Two clients of `bench` that talk on a topic of their own."""
    topic = f"bench/{unique('talk')}"
    async with scripted(broker, "bench") as speaker, scripted(broker, "bench") as listener:
        await speaker.connect()
        await listener.connect()
        await listener.subscribe(topic, qos=1)
        yield Pair(speaker=speaker, listener=listener, topic=topic)
