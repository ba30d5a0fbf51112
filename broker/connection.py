"""One connected MQTT client, from its CONNECT to its end.

*Theory of operation.* One task reads; it feeds the reader, and every event is weighed, routed and
answered in that task, so a client's messages stay in order, and a client that sends faster than its
subscribers read is held back by not being read. A run of packets costs one L1 look-up, one route look-up
and one slice handed on, whatever its count, at any QoS (`_read_on`); everything that may have to
wait is in `Exchange.publish_slowly`. Answers that wait for the store are sent from its callback, in order, while this task
reads on. A second task, the outlet's writer, carries what the socket did not take at once.

What comes before CONNACK is `broker.greeting`'s, what becomes of messages `broker.exchange`'s.

*Rules of this file*: whatever a client does wrong ends that client only, with the reason code of the standard.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

import structlog
import trio
from typing_extensions import override

from broker.admission import Terms, told
from broker.aliases import Aliases
from broker.enhanced_auth import ProofExchange
from broker.exchange import Exchange
from broker.greeting import NO_MEMORY, Greeting
from broker.kernels import CallBook
from broker.lanes import Lanes
from broker.memory import Unfinished
from broker.outlet import Link, Outlet
from broker.subscriptions import Subscriptions
from mqtt.acks import AckRun
from mqtt.encode import encode, encode_bounded
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import (
    Auth,
    Connect,
    Disconnect,
    PacketType,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Unsubscribe,
    Version,
)
from mqtt.reader import PacketReader, Role
from mqtt.runs import Run, run_of

if TYPE_CHECKING:
    from acl.model import Principal
    from broker.services import Services
    from broker.session import Session
    from cache.connection import ConnectionCache
    from mqtt.packets import Packet

log = structlog.get_logger("stockade.broker.connection")

FAREWELL_S = 1.0  # seconds a last packet (CONNACK refusal, DISCONNECT) may take to leave
STORED_S = 5.0  # seconds CONNACK waits for the disk, where it must
# Packets and runs of one client handled between two looks at the clock: one read may hold 32,000 PINGREQs at 20 us each.
LOOKS = range(32)
PUBACK = PacketType.PUBACK  # looking a member up costs more than comparing it
MANY = 16  # clients that one run goes to before that alone is worth a look at the clock


class Connection:
    """One client.

    Attributes:
        principal: from the client's certificate.
        peer: the client's address.
        certificate_ends: second since the epoch at which the certificate expires.
        client_id: the MQTT client identifier, once agreed.
        quiet_until: monotonic second at which silence becomes a timeout; inf while we do not listen.
        cache: this connection's L1.
        outlet: the way out; the client's own once the CONNECT was read.
    """

    def __init__(
        self,
        link: Link,
        *,
        principal: Principal,
        cache: ConnectionCache,
        peer: str,
        certificate_ends: float,
        services: Services,
        certificate: bytes | None = None,
    ) -> None:
        """Take over an authenticated connection; `run` does the rest."""
        self._link = link
        self.principal = principal
        self.peer = peer
        self.certificate_ends = certificate_ends
        self._services = services
        self.cache = cache
        self.client_id = ""
        self.quiet_until = inf
        self._patience_s = inf
        self._reader = PacketReader(
            role=Role.SERVER,
            max_packet_bytes=services.limits.max_packet_bytes,
            topic_alias_maximum=services.limits.topic_alias_maximum,
            allow_v31=services.offer.accept_mqtt31,
        )
        self._unfinished = Unfinished(services.budget.share(principal.name))
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._ending: tuple[ReasonCode, str] | None = None
        self._reference = ""
        self._explain = True
        self._version = Version.V5
        self._ended = False
        self._proof = ProofExchange(
            certificate, verifier=services.broker_id, random_bytes=services.random_bytes
        )
        self._method = ""  # of enhanced authentication
        self.calls = CallBook(self._close_cache_when_idle)
        self.outlet = self._make_outlet(
            Version.V5, max_packet_bytes=services.limits.max_packet_bytes
        )
        self._subscriptions: Subscriptions | None = None

    @override
    def __repr__(self) -> str:
        return f"<Connection {self.principal.name}/{self.client_id} from {self.peer}>"

    # ---- life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the client until it leaves, breaks the protocol, or is ended.

        Cancellation: the client is told (0x8B) within `FAREWELL_S`.
        Resource handling: closes the link, subscriptions and L1 in every case.
        """
        try:
            greeting = Greeting(
                self,
                self._link,
                reader=self._reader,
                proof=self._proof,
                unfinished=self._unfinished,
                services=self._services,
                note=self._note,
            )
            accepted = await greeting.receive()
            if accepted is not None:
                await self._serve(*accepted)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._note("connection broken", str(error))
        finally:
            self._ended = True
            self._unfinished.close()
            self._close_cache_when_idle()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + FAREWELL_S):
                await self._link.aclose()

    def end(self, reason: ReasonCode, text: str, reference: str = "") -> None:
        """Disconnect the client with a reason, and maybe a reference to another server; the first one counts."""
        if self._ending is None:
            self._ending = (reason, text)
            self._reference = reference
        self._scope.cancel()

    async def _authenticate_again(self, packet: Auth) -> None:
        """Re-authentication (4.12.1): the proof anew, and whether the client may still be here."""
        if not self._method:
            raise RemoteProtocolError(
                "AUTH without an authentication method in CONNECT", ReasonCode.PROTOCOL_ERROR
            )
        if packet.reason is ReasonCode.RE_AUTHENTICATE:
            if packet.properties.authentication_method != self._method or self._proof.open:
                raise RemoteProtocolError("AUTH out of turn", ReasonCode.PROTOCOL_ERROR)
            self.outlet.send_control(encode(self._proof.challenge(), Version.V5))
            return
        self._proof.verify(packet)
        decision = await self._services.guard.may_connect(self)
        if not decision.allowed:
            raise RemoteProtocolError(told(decision), ReasonCode.NOT_AUTHORIZED)
        self.outlet.send_control(encode(self._proof.verified(), Version.V5))

    async def _serve(self, connect: Connect, terms: Terms) -> None:
        services = self._services
        self.client_id = terms.client_id
        self._version = connect.version
        self._method = connect.properties.authentication_method or ""
        self._explain = terms.explain
        self._patience_s = terms.patience_s
        self.outlet = self._make_outlet(
            connect.version,
            max_packet_bytes=terms.max_packet_bytes,
            alias_maximum=terms.topic_alias_maximum,
        )
        self.quiet_until = trio.current_time() + self._patience_s
        discards = connect.clean_start and services.registry.keeps(self.principal, terms.client_id)
        session, present = services.registry.enter(self, connect, terms)
        self._note("connected", "", session="resumed" if present else "new")
        try:
            if (
                discards
            ):  # else it could be back after a crash, although the client was told that it is gone
                await self._until_stored()
            connack = replace(terms.connack, session_present=present)
            data = encode_bounded(connack, connect.version, terms.max_packet_bytes)
            if data is None:
                self.end(ReasonCode.PACKET_TOO_LARGE, "CONNACK is longer than the client takes")
            else:
                self.outlet.send_control(data)
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self.outlet.run_writer)
                with self._scope:
                    if self._ending is None:  # else taken over already
                        for _ in services.registry.serve(session):
                            if services.turns.over:
                                await services.turns.wait()
                        exchange = Exchange(self, session, services, explain=self._explain)
                        await self._read_on(session, exchange)
                nursery.cancel_scope.cancel()
        finally:
            services.count.dropped_slow += self.outlet.dropped
            services.count.bytes_out += self.outlet.sent_bytes
            self.outlet.release()
            await self._leave(session)

    async def _until_stored(self) -> None:
        """Wait until what was recorded is on disk; not for a disk that cannot be written."""
        told = trio.Event()
        self._services.store.when_durable(lambda _durable: told.set())
        with trio.move_on_after(STORED_S):
            await told.wait()

    async def _leave(self, session: Session) -> None:
        """End or leave the session, whatever happens; log; tell the client why it is ended, which is bounded in time."""
        if self._ending is None and trio.current_effective_deadline() == -inf:
            self._ending = (ReasonCode.SERVER_SHUTTING_DOWN, "the broker is stopping")
        try:
            with trio.CancelScope(
                shield=True
            ):  # not bounded: a turn comes, and the session must be left
                await self._services.turns.pause()
        finally:
            self._services.registry.leave(self, session)
        if self._ending is None:
            self._note("left", "")
            return
        reason, text = self._ending
        self._note("disconnected", text, reason=f"0x{reason:02x}")
        with trio.CancelScope(shield=True, deadline=trio.current_time() + FAREWELL_S):
            await self._say_goodbye(reason, text)

    async def _say_goodbye(self, reason: ReasonCode, text: str) -> None:
        if self._version != Version.V5:
            return  # 3.1.1 has no DISCONNECT from the server
        properties = Properties(
            reason_string=text if self._explain and text else None,
            server_reference=self._reference or None,
        )
        goodbye = Disconnect(reason=reason, properties=properties)
        data = encode_bounded(goodbye, self._version, self.outlet.max_packet_bytes)
        if data is None:
            return
        try:
            await self._link.flush()
            await self._send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._note("goodbye not delivered", str(error))

    # ---- reading -------------------------------------------------------------------------------

    async def _read_on(self, session: Session, exchange: Exchange) -> None:  # noqa: C901, PLR0912, PLR0915  one loop, so that a run pays for no call
        """The hot loop: read, weigh, route, hand on. Measured with `make bench`, see docs/benchmarks.md.

        INVARIANT: `writes` and `routes` are the same dictionary objects for the connection's life;
        policy changes clear them in place.
        """
        receive, reader = self._link.receive_some, self._reader
        writes, router = self.cache.writes, self._services.publishing.router
        routes, count, me = router.routes, self._services.count, self.outlet
        name, touched = self.principal.name, exchange.touched
        lanes = Lanes(router, self.cache, me, self._services.limits.max_packet_bytes)
        turns, unfinished = self._services.turns, self._unfinished
        try:
            event = reader.next_event()  # what came together with CONNECT
            while True:
                for _ in LOOKS:
                    if event is None:
                        break
                    if type(event) is Run:
                        count.runs_in += 1
                        count.messages_in += event.count
                        decision, route = writes.get(event.topic), routes.get(event.topic)
                        if decision is None or route is None or not decision.allowed:
                            await exchange.publish_slowly(event)
                        elif not event.qos:
                            self.cache.count_hits(event.count)
                            reached = router.deliver_run(route, event, me, name, touched)
                            if reached > MANY and turns.over:
                                await exchange.flush()
                                await turns.wait()
                            if event.count == 1 and route.lane is not None:
                                lanes.learn(event, route.lane)
                                for stretch in reader.next_stretches(lanes.table):
                                    count.runs_in += 1
                                    count.messages_in += stretch.count
                                    self.cache.count_hits(stretch.count)
                                    router.deliver_stretch(stretch, touched)
                        else:
                            await exchange.accept(event)
                            if turns.over:
                                await exchange.flush()
                                await turns.wait()
                    elif type(event) is AckRun:
                        exchange.acknowledged(event.packet_type, event.packet_ids)
                        if event.packet_type is not PUBACK and me.congested:
                            await exchange.wait_until_taken()
                    elif not await self._handle(event, session, exchange):
                        return
                    event = reader.next_event()
                else:
                    if turns.over:
                        await exchange.flush()
                        await turns.wait()
                    continue
                if touched and not exchange.flush_few():
                    await exchange.flush()
                if exchange.overdue:
                    await exchange.wait_until_settled()
                self.quiet_until = trio.current_time() + self._patience_s
                if reader.pending_bytes != unfinished.held_bytes and not unfinished.note(
                    reader.pending_bytes
                ):
                    self.end(ReasonCode.QUOTA_EXCEEDED, NO_MEMORY)
                data = await receive()
                if not data or session.connection is not self:
                    return
                count.bytes_in += len(data)
                reader.feed(data)
                event = reader.next_event()
        except RemoteProtocolError as error:
            count.protocol_errors += 1
            self._ending = self._ending or (error.reason, error.message)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._note("connection broken", str(error))
        finally:
            # Whoever was touched is owed a flush, however this ends: nobody else would do it.
            for outlet in touched:
                outlet.flush_now()

    async def _handle(
        self, packet: Packet | Run | AckRun, session: Session, exchange: Exchange
    ) -> bool:
        """Everything that is neither a run nor a bare acknowledgement; False when the client leaves.

        Answers are not dropped, so a client that does not take them is not read from until it has.
        """
        self.quiet_until = inf
        match packet:
            case Puback() | Pubrec() | Pubrel() | Pubcomp():
                exchange.take_answer(packet)
                if self.outlet.congested:
                    await exchange.wait_until_taken()
            case Disconnect():
                self._take_leave(packet, session)
                return False
            case _:
                await exchange.flush()
                if self.outlet.congested:
                    await self.outlet.wait_until_taken()
                await self._serve_request(packet, session, exchange)
        return True

    async def _serve_request(
        self, packet: Packet | Run | AckRun, session: Session, exchange: Exchange
    ) -> None:
        match packet:
            case Publish():
                self._services.count.messages_in += 1
                await exchange.accept(run_of(packet, self._version), slowly=True)
            case Subscribe() if self._nursery is not None:
                await self._changes_of(session).subscribe(
                    packet, self.outlet, self._nursery, explain=self._explain
                )
            case Unsubscribe():
                await self._changes_of(session).unsubscribe(packet, self.outlet)
            case Pingreq():
                self.outlet.send_control(encode(Pingresp(), self._version))
            case Auth():
                await self._authenticate_again(packet)
            case _:
                raise RemoteProtocolError(
                    f"unexpected {type(packet).__name__.upper()}", ReasonCode.PROTOCOL_ERROR
                )

    def _changes_of(self, session: Session) -> Subscriptions:
        if self._subscriptions is None:
            services = self._services
            self._subscriptions = Subscriptions(
                session,
                guard=services.guard,
                router=services.publishing.router,
                retained=services.publishing.retained,
                store=services.store,
                turns=services.turns,
                max_subscriptions=services.limits.max_subscriptions,
            )
        return self._subscriptions

    def _take_leave(self, packet: Disconnect, session: Session) -> None:
        """The client says goodbye: its will is not published, if it says so (3.14.4-3)."""
        if session.connection is not self:
            return  # it is its successor's
        expiry_s = packet.properties.session_expiry_interval
        if expiry_s is not None:
            if expiry_s and not session.expiry_s:
                raise RemoteProtocolError(
                    "a session that ends with its connection cannot be kept by DISCONNECT",
                    ReasonCode.PROTOCOL_ERROR,
                )
            session.expiry_s = min(expiry_s, self._services.limits.max_session_expiry_s)
        if packet.reason == ReasonCode.SUCCESS:
            session.will = None

    def _close_cache_when_idle(self) -> None:
        """Drop the L1 once the connection is gone and its last kernel call was answered."""
        if self._ended and not self.calls.open:
            self.cache.close()

    # ---- small things --------------------------------------------------------------------------

    async def _send(self, data: bytes) -> None:
        if not self._link.send_now(data):
            await self._link.flush()

    def _make_outlet(
        self, version: Version, *, max_packet_bytes: int, alias_maximum: int = 0
    ) -> Outlet:
        limits = self._services.limits
        return Outlet(
            self._link,
            version=version,
            max_packet_bytes=max_packet_bytes,
            max_queued_bytes=limits.max_queued_bytes,
            slow_consumer_s=limits.slow_consumer_s,
            stuck_consumer_s=limits.stuck_consumer_s,
            broken=lambda text: self.end(ReasonCode.UNSPECIFIED_ERROR, text),
            budget=self._services.budget.share(self.principal.name),
            aliases=Aliases(alias_maximum) if alias_maximum else None,
            turns=self._services.turns,
        )

    def _note(self, event: str, text: str, **fields: str) -> None:
        if text:
            fields["detail"] = text
        log.info(
            event, principal=self.principal.name, client=self.client_id, peer=self.peer, **fields
        )
