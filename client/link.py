"""A connection after CONNACK: reads packets, sends them, keeps the line alive, and knows when it is lost.

*Rules of this file.* Nothing raises out of the background tasks: whatever ends the connection becomes one
`ConnectionLost`, which every present and future caller gets. Messages are handed on in order and with
back-pressure; a QoS 1 message is acknowledged when the application's channel has taken it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from typing_extensions import override

from client.errors import ClientError, ConnectionLost, LocalMisuse, in_words
from client.inflight import Acknowledgement, Inflight
from client.writer import Writer
from mqtt.acks import AckRun
from mqtt.encode import encode
from mqtt.errors import LocalProtocolError, ReasonCode, RemoteProtocolError
from mqtt.packets import (
    Connack,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Unsuback,
    Version,
)
from mqtt.reader import PacketReader
from mqtt.runs import Run
from transport.errors import TransportError
from transport.tls import TlsStream

DEFAULT_RECEIVE_MAXIMUM = 65_535  # MQTT 5.0 section 3.2.2.3.3: what an absent Receive Maximum means

FAREWELL_S = 2.0
"""How long the DISCONNECT may take: what is unsent leaves before it."""


class Link:
    """One MQTT connection.

    *Resource handling*: owns the stream; `close` gives it up.
    """

    def __init__(
        self,
        stream: TlsStream,
        reader: PacketReader,
        connack: Connack,
        *,
        on_message: Callable[[Publish], Awaitable[None]],
        on_lost: Callable[[ConnectionLost], None],
    ) -> None:
        """Take over `stream` after the broker's `connack`; `reader` may hold bytes that came behind it."""
        self._stream = stream
        self._reader = reader
        self._on_message = on_message
        self._on_lost = on_lost
        self._writer = Writer(stream)
        self._asked_at: float | None = None
        self._heard = False
        self._reading = False
        self.connack = connack
        self.lost: ConnectionLost | None = None
        limit = connack.properties.receive_maximum or DEFAULT_RECEIVE_MAXIMUM
        self.inflight = Inflight(receive_maximum=limit)

    @override
    def __repr__(self) -> str:
        state = "open" if self.lost is None else f"lost: {self.lost}"
        return f"<Link to {self._stream.peer_address} {state}>"

    @property
    def version(self) -> Version:
        """The protocol version of this connection."""
        return self._reader.version

    def encoded(self, packet: Packet) -> bytes:
        """Return the wire bytes of `packet`.

        Raises:
            LocalMisuse: MQTT does not allow it, or the broker said it takes no packet of this size.
        """
        try:
            data = encode(packet, self.version)
        except LocalProtocolError as error:
            raise LocalMisuse(str(error)) from error
        limit = self.connack.properties.maximum_packet_size
        if limit is not None and len(data) > limit:
            raise LocalMisuse(f"the packet has {len(data)} bytes, the broker takes at most {limit}")
        return data

    async def send(self, data: bytes, *, taken: Callable[[], None] | None = None) -> None:
        """Send whole packets; always a checkpoint. `taken` is called once they will leave, come what may.

        Raises:
            ConnectionLost: the connection is gone.
        """
        if self.lost is not None:
            raise self.lost
        try:
            await self._writer.send(data, taken=taken)
        except (TransportError, ConnectionLost) as error:
            raise self._lose(error) from error

    async def ask(
        self, expects: type[Acknowledgement], make: Callable[[int], Packet], *, deadline_s: float
    ) -> Acknowledgement | None:
        """Send the packet that `make` returns for a packet identifier and wait for its acknowledgement.

        Returns:
            None if it did not come in time.

        Raises:
            LocalMisuse: the packet is not allowed; nothing was sent.
            ConnectionLost: the connection is gone.
        """
        with trio.move_on_after(deadline_s):
            waiting = await self.inflight.open(expects)
            try:
                data = self.encoded(make(waiting.packet_id))
                await self.send(data, taken=waiting.mark_sent)
            finally:
                if not waiting.sent:
                    self.inflight.abandon(waiting)
            await waiting.done.wait()
            if waiting.answer is None:
                raise self.lost or ConnectionLost("the connection is gone")
            return waiting.answer
        return None

    async def receive(self) -> None:
        """Read until the connection is lost. Never raises but `Cancelled`."""
        try:
            await self._dispatch_all()  # what came behind the CONNACK
            while True:
                self._reading = True
                data = await self._stream.receive_some()
                self._reading = False
                self._asked_at, self._heard = None, True
                if not data:
                    self._lose(ConnectionLost("the broker closed the connection"))
                    return
                self._reader.feed(data)
                await self._dispatch_all()
        except RemoteProtocolError as error:
            await self._send_farewell(Disconnect(reason=error.reason))
            self._lose(
                ConnectionLost(f"the broker broke the protocol: {error}", reason=error.reason)
            )
        except (TransportError, ClientError) as error:
            self._lose(error)

    async def write(self) -> None:
        """Send what cannot wait for its caller, until the connection is lost."""
        try:
            await self._writer.run()
        except (TransportError, ConnectionLost) as error:
            self._lose(error)

    async def keep_alive(self, interval_s: float) -> None:
        """Ping an idle line, and notice a broker that fell silent.

        We ping also while we send: QoS 0 messages bring no answer, so only a ping tells whether they arrive.

        Args:
            interval_s: the keep-alive agreed on, seconds (MQTT 5.0 section 3.1.2.10).
        """
        while self.lost is None:
            sends, self._heard = self._writer.sends, False
            await trio.sleep(interval_s / 2)
            now = trio.current_time()
            # While the application leaves messages unread we hear nothing: not the broker's fault.
            silent = self._reading and self._asked_at is not None
            if silent and now - (self._asked_at or 0.0) >= interval_s:
                self._lose(ConnectionLost(f"the broker gave no sign of life for {interval_s:g} s"))
            elif self._writer.sends == sends or not self._heard:
                self._asked_at = self._asked_at or now
                self._ping()

    def _ping(self) -> None:
        try:
            self._writer.post(encode(Pingreq(), self.version))
        except (TransportError, ConnectionLost) as error:
            self._lose(error)

    async def close(self) -> None:
        """Say DISCONNECT if there is still someone to say it to, and close; takes a few seconds at most."""
        if self.lost is None:
            self._lose(ConnectionLost("the connection was closed by us"), abort=False)
            await self._send_farewell(Disconnect())
        with trio.CancelScope(shield=True):  # aclose bounds its own time
            await self._stream.aclose()

    async def _send_farewell(self, packet: Disconnect) -> None:
        with trio.move_on_after(FAREWELL_S, shield=True):
            try:
                await self._writer.send(encode(packet, self.version))
            except (TransportError, ConnectionLost, LocalProtocolError):
                return  # whoever is gone needs no goodbye; 3.1.1 has no word for a reason

    async def _dispatch_all(self) -> None:
        while (event := self._reader.next_event()) is not None:
            if isinstance(event, Run):
                for index in range(event.count):
                    await self._dispatch(event.packet(index))
            elif isinstance(event, AckRun):
                for packet in event.packets():
                    await self._dispatch(packet)
            else:
                await self._dispatch(event)

    async def _dispatch(self, packet: Packet) -> None:
        match packet:
            case Publish(qos=0):
                await self._on_message(packet)
            case Publish(qos=1, packet_id=int(packet_id)):
                await self._on_message(packet)
                self._writer.post(encode(Puback(packet_id=packet_id), self.version))
            case Puback() | Suback() | Unsuback():
                self.inflight.settle(packet)
            case Pingresp():
                pass
            case Disconnect():
                why = in_words(packet.reason, packet.properties.reason_string or "")
                raise ConnectionLost(
                    f"the broker ended the connection: {why}", reason=packet.reason
                )
            case _:
                name = type(packet).__name__.upper()
                raise RemoteProtocolError(f"unexpected {name}", ReasonCode.PROTOCOL_ERROR)

    def _lose(self, cause: Exception, *, abort: bool = True) -> ConnectionLost:
        """Remember the first cause, tell everyone who waits; return it."""
        if self.lost is None:
            self.lost = cause if isinstance(cause, ConnectionLost) else ConnectionLost(str(cause))
            self.inflight.fail(self.lost)
            self._on_lost(self.lost)
            if abort:
                self._stream.abort()
        return self.lost
