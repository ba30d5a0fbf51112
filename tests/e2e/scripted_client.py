"""A client that follows a script: packets or bytes out, packets in, and nothing by itself.

    async with scripted(broker, "sensor") as client:
        await client.connect()
        await client.send(Publish(topic="conf/a", qos=1, packet_id=1))
        assert await client.receive() == Puback(packet_id=1)

*Rules of this file.* Every wait has a deadline. Nothing is acknowledged but by the script, or by a method that says so. What
the broker sends is read by `mqtt.plain` in the client's role, with the limits that the script's CONNECT announced: a
packet that no server may send to this client fails the test that met it.
"""

from __future__ import annotations

import itertools
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from certs.contexts import client_context
from mqtt.encode import encode
from mqtt.errors import ReasonCode
from mqtt.packets import (
    EMPTY,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Role,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Version,
    Will,
)
from mqtt.plain import PlainReader
from tests.e2e.clients import endpoint, unique

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from tests.e2e.daemons import Site

PATIENCE_S: Final = 10.0
"""How long one wait may take: a broker answers in milliseconds, two busy cores in seconds."""

LARGEST_PACKET_BYTES: Final = 268_435_460

P = TypeVar("P", bound=Packet)


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A broker to talk to.

    Attributes:
        host: where it listens; a name of its certificate.
        port: where it listens.
        contexts: how each principal connects.
        keys: the file of each principal's private key.
    """

    host: str
    port: int
    contexts: Mapping[str, ssl.SSLContext]
    keys: Mapping[str, Path]


def broker_of(site: Site) -> Broker:
    """Where the site's broker listens, and how its clients connect."""
    host, port = endpoint(site.addresses["mqtts"])
    contexts = {
        name: client_context(
            certificate=files.certificate, key=files.key, ca=site.pki.ca, alpn=("mqtt",)
        )
        for name, files in site.pki.clients.items()
    }
    keys = {name: files.key for name, files in site.pki.clients.items()}
    return Broker(host=host, port=port, contexts=contexts, keys=keys)


class ScriptedClient:
    """One connection.

    Attributes:
        version: of the connection; the script sets it where it sends a CONNECT as bytes.
        heard: every byte the broker sent.
    """

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self.version = Version.V5
        self.heard = b""
        self._stream = stream
        self._received: deque[Packet] = deque()
        self._reader = PlainReader(role=Role.CLIENT, max_packet_bytes=LARGEST_PACKET_BYTES)
        self._ids = itertools.count(1)

    # -- out

    async def send(self, *packets: Packet) -> None:
        """Send packets in one write."""
        await self.send_raw(b"".join(map(self._wire, packets)))

    async def send_raw(self, data: bytes) -> None:
        """Send bytes, legal or not; whether the broker still takes them shows in what it answers."""
        with trio.fail_after(PATIENCE_S):
            try:
                await self._stream.send_all(data)
            except trio.BrokenResourceError:
                return

    def _wire(self, packet: Packet) -> bytes:
        if isinstance(packet, Connect):
            self.version = packet.version
            asked = packet.properties
            self._reader = PlainReader(
                role=Role.CLIENT,
                max_packet_bytes=asked.maximum_packet_size or LARGEST_PACKET_BYTES,
                topic_alias_maximum=asked.topic_alias_maximum or 0,
            )
        return encode(packet, self.version)

    async def drop(self) -> None:
        """End the connection without DISCONNECT."""
        await trio.aclose_forcefully(self._stream)

    async def leave(
        self,
        reason: ReasonCode = ReasonCode.NORMAL_DISCONNECTION,
        *,
        properties: Properties = EMPTY,
    ) -> None:
        """Send DISCONNECT and wait for the end."""
        await self.send(Disconnect(reason=reason, properties=properties))
        await self.expect_closed()

    # -- in

    async def receive(self) -> Packet:
        """The next packet."""
        packet = await self._next()
        assert packet is not None, "the broker ended the connection"
        return packet

    async def receive_of(self, kind: type[P]) -> P:
        """The next packet of a kind; the others before it stay for later."""
        passed: list[Packet] = []
        while not isinstance(packet := await self.receive(), kind):
            passed.append(packet)
        self._received.extendleft(reversed(passed))
        return packet

    async def take(self) -> Publish:
        """The next message, acknowledged as its QoS asks."""
        message = await self.receive_of(Publish)
        match message.qos:
            case 1:
                await self.send(Puback(packet_id=id_of(message)))
            case 2:
                await self.send(Pubrec(packet_id=id_of(message)))
                assert await self.receive_of(Pubrel) == Pubrel(packet_id=id_of(message))
                await self.send(Pubcomp(packet_id=id_of(message)))
            case _:
                pass
        return message

    async def ping(self) -> None:
        """Have everything handled that was sent so far."""
        await self.send(Pingreq())
        await self.receive_of(Pingresp)

    async def expect_nothing(self) -> None:
        """Refuse any packet but the answer to a ping sent now."""
        await self.send(Pingreq())
        assert (packet := await self.receive()) == Pingresp(), packet

    async def expect_closed(self, *reasons: ReasonCode) -> Disconnect | None:
        """Refuse anything but the end of the connection.

        Args:
            reasons: one of them must be told in a DISCONNECT; with none, not a byte may come.
        """
        goodbye = None
        if reasons:
            goodbye = await self.receive_of(Disconnect)
            assert goodbye.reason in reasons, goodbye
        assert (packet := await self._next()) is None, packet
        return goodbye

    async def expect_refused(self, *reasons: ReasonCode) -> Connack | None:
        """Refuse anything but the end of a connection that never was: a CONNACK may say why, nothing else may come.

        Args:
            reasons: what the CONNACK may say; with none, whatever is a failure.
        """
        answer = await self._next()
        if answer is None:
            return None
        assert isinstance(answer, Connack), answer
        assert answer.reason in reasons if reasons else answer.reason.failed, answer
        assert (packet := await self._next()) is None, packet
        return answer

    async def _next(self) -> Packet | None:
        """The next packet; None at the end."""
        with trio.move_on_after(PATIENCE_S) as waiting:
            while not self._received:
                try:
                    data = await self._stream.receive_some()
                except trio.BrokenResourceError:  # the broker did not wait for our close
                    return None
                if not data:
                    return None
                self._take_in(bytes(data))
        assert not waiting.cancelled_caught, f"nothing came within {PATIENCE_S:g} s"
        return self._received.popleft()

    def _take_in(self, data: bytes) -> None:
        self.heard += data
        self._reader.version = self.version
        self._reader.feed(data)
        while (event := self._reader.next_event()) is not None:
            self._received.append(event)

    # -- whole exchanges

    async def connect(self, connect: Connect | None = None) -> Connack:
        """Send CONNECT, as a new client unless told otherwise; the broker must accept it."""
        await self.send(connect or Connect(client_id=unique("scripted")))
        connack = await self.receive()
        assert isinstance(connack, Connack), connack
        assert connack.reason is ReasonCode.SUCCESS, connack
        return connack

    async def subscribe(
        self, *filters: str | Subscription, qos: int = 0, properties: Properties = EMPTY
    ) -> tuple[ReasonCode, ...]:
        """Subscribe; what was granted.

        Args:
            filters: with their options, or with `qos` and no other.
            qos: of the filters given as text.
            properties: of the SUBSCRIBE.
        """
        wanted = tuple(
            Subscription(filter=each, qos=qos) if isinstance(each, str) else each
            for each in filters
        )
        packet_id = next(self._ids)
        await self.send(Subscribe(packet_id=packet_id, filters=wanted, properties=properties))
        suback = await self.receive_of(Suback)
        assert suback.packet_id == packet_id
        return suback.reasons

    async def unsubscribe(self, *filters: str) -> tuple[ReasonCode, ...]:
        """Unsubscribe; what came of it."""
        packet_id = next(self._ids)
        await self.send(Unsubscribe(packet_id=packet_id, filters=filters))
        unsuback = await self.receive_of(Unsuback)
        assert unsuback.packet_id == packet_id
        return unsuback.reasons

    async def publish(
        self,
        topic: str,
        payload: bytes = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Properties = EMPTY,
    ) -> ReasonCode:
        """Publish and go through with it; the reason of the first answer.

        When this returns the broker has handled the message, also at QoS 0.
        """
        return await self.go_through_with(
            Publish(
                topic=topic,
                payload=payload,
                qos=qos,
                retain=retain,
                packet_id=next(self._ids) if qos else None,
                properties=properties,
            )
        )

    async def go_through_with(self, *messages: Publish) -> ReasonCode:
        """Send messages of one QoS in one write, and finish them in order; the reason of the last one's first answer."""
        await self.send(*messages)
        reason = ReasonCode.SUCCESS
        for message in messages:
            if message.qos:
                reason = await self._acknowledged(id_of(message), message.qos)
            else:
                await self.ping()
        return reason

    async def _acknowledged(self, packet_id: int, qos: int) -> ReasonCode:
        """Wait for the answer to a message above QoS 0, and finish it; the reason of the answer."""
        answer: Puback | Pubrec
        if qos == 1:
            answer = await self.receive_of(Puback)
        else:
            answer = await self.receive_of(Pubrec)
            if not answer.reason.failed:
                await self.send(Pubrel(packet_id=packet_id))
                assert await self.receive_of(Pubcomp) == Pubcomp(packet_id=packet_id)
        assert answer.packet_id == packet_id
        return answer.reason


def id_of(message: Publish) -> int:
    """The packet identifier of a message above QoS 0."""
    assert message.packet_id is not None
    return message.packet_id


def plain(message: Publish) -> Publish:
    """A message without what belongs to one delivery of it, to compare with another."""
    return replace(message, packet_id=None, dup=False, qos=0)


@asynccontextmanager
async def scripted(broker: Broker, principal: str) -> AsyncGenerator[ScriptedClient]:
    """A TLS connection of a principal, without CONNECT; dropped at the end.

    Args:
        broker: where to connect.
        principal: whose certificate to show.
    """
    with trio.fail_after(PATIENCE_S):
        tcp = await trio.open_tcp_stream(broker.host, broker.port)
        stream = trio.SSLStream(
            tcp,
            broker.contexts[principal],
            server_hostname=broker.host,
            https_compatible=True,  # the end of the connection is what counts, not how TLS ends
        )
        await stream.do_handshake()
    client = ScriptedClient(stream)
    try:
        yield client
    finally:
        await client.drop()


async def a_second_passes(broker: Broker) -> None:
    """Return when the broker says that a second has passed: it publishes a will with that delay."""
    topic = f"conf/{unique('second')}"
    async with scripted(broker, "viewer") as witness, scripted(broker, "viewer") as late:
        await witness.connect()
        await witness.subscribe(topic)
        await late.connect(with_will(topic, delay_s=1))
        await late.drop()
        await witness.take()


def with_will(topic: str, *, delay_s: int) -> Connect:
    """A client whose will is due `delay_s` seconds after its connection ended."""
    return Connect(
        client_id=unique("will"),
        will=Will(topic=topic, properties=Properties(will_delay_interval=delay_s)),
        properties=Properties(session_expiry_interval=delay_s + 60),
    )
