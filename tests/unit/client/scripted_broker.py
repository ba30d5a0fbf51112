"""A tiny MQTT server over real sockets and real mutual TLS, whose answers a test can change.

It routes QoS 0 and 1 messages between its connections, so most tests need no script. It is no broker: no
sessions, no retained messages, no authorization.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from certs.identity import PeerIdentity
from client.connection import Client, connect
from mqtt.acks import AckRun
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
    Puback,
    Publish,
    Role,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Version,
)
from mqtt.properties import Properties
from mqtt.reader import PacketReader
from mqtt.runs import Run
from mqtt.topics import FilterTree
from tests.pki import TestPki
from transport.addresses import bind_tcp
from transport.errors import TransportError
from transport.listener import HandshakeEvent, serve_tls
from transport.tls import TlsStream


class Peer:
    """One connected client, as the server sees it."""

    def __init__(self, stream: TlsStream) -> None:
        self.stream = stream
        self.reader = PacketReader(role=Role.SERVER, max_packet_bytes=1 << 24)

    async def send(self, *packets: Packet) -> None:
        wire = b"".join(encode(packet, self.reader.version) for packet in packets)
        await self.stream.send_all(wire)


Script = Callable[[Peer, Packet], Awaitable[bool]]
"""Looks at every packet first; returns whether it has dealt with it."""


async def _no_script(peer: Peer, packet: Packet) -> bool:
    return False


@dataclass
class ScriptedBroker:
    """The server; change `connack` and `script` before or between connections."""

    pki: TestPki
    connack: Connack = field(default_factory=Connack)
    script: Script = _no_script
    received: list[Packet] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    events: list[HandshakeEvent] = field(default_factory=list)
    port: int = 0
    _tree: FilterTree[Peer] = field(default_factory=FilterTree)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        context = self.pki.server_context(self.pki.broker())
        listeners = bind_tcp("127.0.0.1", 0)
        self.port = listeners[0].getsockname()[1]
        await serve_tls(
            listeners,
            context=lambda: context,
            alpn=("mqtt",),
            handler=self._serve,
            verify=_verify_anyone,
            on_event=self.events.append,
            task_status=task_status,
        )

    def of(self, kind: type[Packet]) -> list[Packet]:
        """Packets of one type received so far."""
        return [packet for packet in self.received if isinstance(packet, kind)]

    async def _serve(self, stream: TlsStream) -> None:
        peer = Peer(stream)
        filters: set[str] = set()
        try:
            while data := await stream.receive_some():
                peer.reader.feed(data)
                while (event := peer.reader.next_event()) is not None:
                    if isinstance(event, Run):
                        if not event.qos:
                            self.runs.append(event.count)
                        packets: list[Packet] = [event.packet(i) for i in range(event.count)]
                    elif isinstance(event, AckRun):
                        packets = [*event.packets()]
                    else:
                        packets = [event]
                    for packet in packets:
                        self.received.append(packet)
                        if not await self.script(peer, packet):
                            await self._answer(peer, packet, filters)
        except TransportError:
            pass  # the client went away: what a test is about is on the client's side
        finally:
            for each in filters:
                self._tree.remove(each, id(peer))

    async def _answer(self, peer: Peer, packet: Packet, filters: set[str]) -> None:
        match packet:
            case Connect():
                await peer.send(self.connack)
            case Subscribe():
                for each in packet.filters:
                    self._tree.add(each.filter, id(peer), peer)
                    filters.add(each.filter)
                granted = tuple(ReasonCode(each.qos) for each in packet.filters)
                await peer.send(Suback(packet_id=packet.packet_id, reasons=granted))
            case Unsubscribe():
                for name in packet.filters:
                    self._tree.remove(name, id(peer))
                    filters.discard(name)
                reasons = tuple(ReasonCode.SUCCESS for _ in packet.filters)
                await peer.send(Unsuback(packet_id=packet.packet_id, reasons=reasons))
            case Publish():
                if packet.packet_id is not None:
                    await peer.send(Puback(packet_id=packet.packet_id))
                for other in self._tree.match(packet.topic):
                    await other.send(
                        Publish(
                            topic=packet.topic, payload=packet.payload, properties=packet.properties
                        )
                    )
            case Pingreq():
                await peer.send(Pingresp())
            case Disconnect():
                await peer.stream.aclose()
            case Puback():
                pass
            case _:
                raise AssertionError(packet)

    def dial(
        self,
        *,
        version: Version = Version.V5,
        client_id: str = "",
        reply_prefix: str | None = None,
        keep_alive_s: int = 30,
        deadline_s: float = 5.0,
        properties: Properties = EMPTY,
    ) -> AbstractAsyncContextManager[Client]:
        """Connect as the client `sensor`."""
        return connect(
            host="127.0.0.1",
            port=self.port,
            context=self.pki.client_context(self.pki.client("sensor")),
            version=version,
            client_id=client_id,
            reply_prefix=reply_prefix,
            keep_alive_s=keep_alive_s,
            deadline_s=deadline_s,
            properties=properties,
        )


def _verify_anyone(stream: TlsStream, identity: PeerIdentity) -> None:
    """The chain is enough here."""


@asynccontextmanager
async def running_broker(directory: Path) -> AsyncIterator[ScriptedBroker]:
    broker = ScriptedBroker(TestPki(directory))
    async with trio.open_nursery() as nursery:
        await nursery.start(broker.run)
        yield broker
        nursery.cancel_scope.cancel()
