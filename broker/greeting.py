"""The first packets of a connection, up to CONNACK: CONNECT, admission, enhanced authentication.

*Rules of this file*: whoever is refused is told why in the version it asked for, as far as that version can say it, and
counted; nothing of it stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from broker.admission import Refusal, Terms, agree, refuse, told
from mqtt.encode import encode
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import Auth, Connack, Connect, Properties, Version

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.enhanced_auth import ProofExchange
    from broker.guard import Asker
    from broker.memory import Unfinished
    from broker.outlet import Link
    from broker.services import Services
    from mqtt.acks import AckRun
    from mqtt.packets import Packet
    from mqtt.reader import PacketReader
    from mqtt.runs import Run

NO_MEMORY = "too much is held of packets that are not complete"
REFUSAL_S = 1.0  # seconds a CONNACK that refuses may take to leave


class Greeting:
    """Receives and weighs one CONNECT.

    Attributes:
        version: the client's, once it is known.
        note: logs an event of the connection, with a detail.
    """

    def __init__(
        self,
        client: Asker,
        link: Link,
        *,
        reader: PacketReader,
        proof: ProofExchange,
        unfinished: Unfinished,
        services: Services,
        note: Callable[[str, str], None],
    ) -> None:
        """Begin with a connection that was authenticated by TLS.

        Args:
            client: who it is, for the policy.
            link: the way to it.
            reader: of what it sends.
            proof: for enhanced authentication.
            unfinished: counts what it sent of a packet.
            services: what all connections share.
            note: logs an event of the connection, with a detail.
        """
        self._client = client
        self._link = link
        self._reader = reader
        self._proof = proof
        self._unfinished = unfinished
        self._services = services
        self.note = note
        self.version = Version.V5

    async def receive(self) -> tuple[Connect, Terms] | None:
        """Return an accepted CONNECT and what was agreed; None when the client left or was refused and told."""
        connect: Packet | Run | AckRun | None = None
        with trio.move_on_after(self._services.limits.connect_deadline_s) as deadline:
            connect = await self._receive_packet()
        if deadline.cancelled_caught:
            self.note("connect timeout", "no CONNECT within the deadline")
        if not isinstance(connect, Connect):
            return None
        self.version = connect.version
        await self._services.turns.pause()
        terms = await self._admit(connect)
        if terms is None or not await self._authenticate(connect):
            return None
        # Others came while this one was weighed and proved itself.
        refusal = self._no_room(terms)
        if refusal is not None:
            await self._turn_away(refusal)
            return None
        return connect, terms

    async def _receive_packet(self) -> Packet | Run | AckRun | None:
        """A packet before CONNACK; None when the peer left, or broke the protocol and was told."""
        try:
            while (event := self._reader.next_event()) is None:
                if not self._unfinished.note(self._reader.pending_bytes):
                    await self._turn_away(Refusal(reason=ReasonCode.QUOTA_EXCEEDED, text=NO_MEMORY))
                    return None
                data = await self._link.receive_some()
                if not data:
                    return None
                self._reader.feed(data)
        except RemoteProtocolError as error:
            self._services.count.protocol_errors += 1
            self.note("protocol error before CONNACK", str(error))
            self.version = self._reader.version
            await self._refuse(Refusal(reason=error.reason, text=error.message))
            return None
        self._unfinished.note(0)
        return event

    async def _admit(self, connect: Connect) -> Terms | None:
        """Weigh a CONNECT; None when it was refused and the client told."""
        refusal = refuse(connect) or self._busy()
        if refusal is None and self._services.guard.refusal:
            # Not a verdict on this client: it may come back when the controller answers again.
            refusal = Refusal(
                reason=ReasonCode.SERVER_UNAVAILABLE, text="the broker has no current policy"
            )
        if refusal is None:
            decision = await self._services.guard.may_connect(self._client)
            if not decision.allowed:
                refusal = Refusal(reason=ReasonCode.NOT_AUTHORIZED, text=told(decision))
        terms = agree(
            connect,
            limits=self._services.limits,
            offer=self._services.offer,
            principal=self._client.principal.name,
            assigned_id=self._services.new_client_id(),
        )
        if refusal is not None:
            await self._turn_away(refusal)
            return None
        return terms

    def _no_room(self, terms: Terms) -> Refusal | None:
        """Why there is no place for this client; None when there is one."""
        text = self._services.registry.refusal(self._client.principal, terms.client_id)
        share = self._services.budget.share(self._client.principal.name)
        if terms.will is not None and not share.has_room(len(terms.will.packet)):
            text = text or "no room for the will"
        full = Refusal(reason=ReasonCode.QUOTA_EXCEEDED, text=text) if text else None
        return self._busy() or full

    def _busy(self) -> Refusal | None:
        """Why there is no place for anybody; None when there is one."""
        if self._services.registry.stopping:
            return Refusal(reason=ReasonCode.SERVER_UNAVAILABLE, text="the broker is shutting down")
        if self._services.registry.full:
            return Refusal(reason=ReasonCode.SERVER_BUSY, text="too many connections")
        return None

    async def _authenticate(self, connect: Connect) -> bool:
        """Enhanced authentication, if the client asked for it; False when it failed and the client was told."""
        if connect.properties.authentication_method is None:
            return True
        refusal = Refusal(reason=ReasonCode.NOT_AUTHORIZED, text="no proof within the deadline")
        with trio.move_on_after(self._services.limits.connect_deadline_s):
            await self._send(encode(self._proof.challenge(), Version.V5))
            packet = await self._receive_packet()
            try:
                if isinstance(packet, Auth):
                    self._proof.verify(packet)
                    return True
                if packet is None:
                    return False
                refusal = Refusal(reason=ReasonCode.PROTOCOL_ERROR, text="AUTH is due")
            except RemoteProtocolError as error:
                refusal = Refusal(reason=error.reason, text=error.message)
        await self._turn_away(refusal)
        return False

    async def _turn_away(self, refusal: Refusal) -> None:
        self._services.count.refused_connects += 1
        self.note("connect refused", refusal.text)
        await self._refuse(refusal)

    async def _refuse(self, refusal: Refusal) -> None:
        """CONNACK with a refusal, in the client's version."""
        text = refusal.text if self.version is Version.V5 and refusal.text else None
        connack = Connack(
            session_present=False,
            reason=refusal.reason,
            properties=Properties(reason_string=text),
        )
        with trio.move_on_after(REFUSAL_S):
            await self._send(encode(connack, self.version))

    async def _send(self, data: bytes) -> None:
        if not self._link.send_now(data):
            await self._link.flush()
