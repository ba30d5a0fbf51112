"""One connected MQTT client, from its CONNECT to its end.

*Theory of operation.* One task reads; it feeds the reader, and every event is weighed, routed and
answered in that task, so a client's messages stay in order, and a client that sends faster than its
subscribers read is held back by not being read. A run of packets costs one L1 look-up, one route look-up
and one slice handed on, whatever its count, at any QoS (`_read_on`); everything that may have to
wait is in `_publish_slowly`. Answers that wait for the store are sent from its callback, in order, while this task
reads on. A second task, the outlet's writer, carries what the socket did not take at once.

*Rules of this file*: whatever a client does wrong ends that client only, with the reason code of
the standard. Denied QoS 0 messages are dropped and audited; denied QoS 1 and 2 messages are answered 0x87
with the decision id (MQTT 3.1.1 has no such answer: they are acknowledged and dropped).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import structlog
import trio
from typing_extensions import override

from broker.admission import Offer, Refusal, Terms, agree, refuse
from broker.aliases import Aliases
from broker.answers import answer
from broker.enhanced_auth import METHOD, ProofExchange
from broker.kernels import CallBook
from broker.outlet import Link, Outlet
from broker.publishing import Outcome
from broker.subscriptions import Subscriptions
from mqtt.acks import AckRun
from mqtt.encode import encode, encode_bounded
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import (
    Auth,
    Connack,
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
    from collections.abc import Callable, Sequence

    from acl.decide import Decision
    from acl.model import Principal
    from broker.config import BrokerLimits
    from broker.durability import Durability
    from broker.guard import Guard
    from broker.memory import MemoryBudget
    from broker.publishing import Publishing
    from broker.registry import Registry
    from broker.session import Session
    from cache.connection import ConnectionCache
    from mqtt.packets import Packet

log = structlog.get_logger("stockade.broker.connection")

FAREWELL_S = 1.0  # seconds a last packet (CONNACK refusal, DISCONNECT) may take to leave
LEAVE_S = 6.0  # seconds the end of a session (a will to be weighed and routed) may take
# Packets and runs of one client handled in a row. One read may hold 32,000 PINGREQs at 20 us each;
# with this bound the others wait for 5 ms at most, and a checkpoint costs a run-of-one 2 % of its time.
EVENTS_PER_TURN = 256
MAX_OPEN = 65_535  # messages a 3.1.1 client has open: it has no Receive Maximum, but only so many identifiers
FULL = Outcome(reason=ReasonCode.QUOTA_EXCEEDED, text="the broker cannot store messages now")
TAKEN = Outcome(reason=ReasonCode.SUCCESS)
QOS_2 = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What all connections of a broker share."""

    guard: Guard
    publishing: Publishing
    registry: Registry
    store: Durability
    limits: BrokerLimits
    offer: Offer
    budget: MemoryBudget
    broker_id: str
    random_bytes: Callable[[int], bytes]
    new_client_id: Callable[[], str]
    count: Counters


@dataclass(slots=True, kw_only=True)
class Counters:
    """Plain counts the metrics page reads."""

    messages_in: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    runs_in: int = 0
    protocol_errors: int = 0
    refused_connects: int = 0
    dropped_slow: int = 0


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
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._ending: tuple[ReasonCode, str] | None = None
        self._reference = ""
        self._explain = True
        self._version = Version.V5
        self._ended = False
        self._owed = 0  # messages whose answer waits for the store
        self._settled = trio.Event()
        self._receive_maximum = services.limits.receive_maximum
        self._proof = ProofExchange(
            certificate, verifier=services.broker_id, random_bytes=services.random_bytes
        )
        self._method_agreed = False
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
            connect: Connect | None = None
            with trio.move_on_after(self._services.limits.connect_deadline_s) as deadline:
                connect = await self._receive_connect()
            if deadline.cancelled_caught:
                self._note("connect timeout", "no CONNECT within the deadline")
                return
            if (
                connect is not None
                and (terms := await self._admit(connect)) is not None
                and await self._authenticate(connect)
            ):
                await self._serve(connect, terms)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._note("connection broken", str(error))
        finally:
            self._ended = True
            self._close_cache_when_idle()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + FAREWELL_S):
                await self._link.aclose()

    def end(self, reason: ReasonCode, text: str, reference: str = "") -> None:
        """Disconnect the client with a reason, and maybe a reference to another server; the first one counts."""
        if self._ending is None:
            self._ending = (reason, text)
            self._reference = reference
        self._scope.cancel()

    async def _receive_connect(self) -> Connect | None:
        """The CONNECT packet; None when the peer left or sent something else."""
        packet = await self._receive_first()
        if not isinstance(packet, Connect):
            return None
        self._version = packet.version
        return packet

    async def _receive_first(self) -> Packet | Run | AckRun | None:
        """A packet before CONNACK; None when the peer left, or broke the protocol and was told."""
        try:
            while (event := self._reader.next_event()) is None:
                data = await self._link.receive_some()
                if not data:
                    return None
                self._reader.feed(data)
        except RemoteProtocolError as error:
            self._services.count.protocol_errors += 1
            self._note("protocol error before CONNACK", str(error))
            self._version = (
                self._reader.version
            )  # a refusal is told in the version that was asked for
            await self._refuse(Refusal(reason=error.reason, text=error.message))
            return None
        return event

    async def _authenticate(self, connect: Connect) -> bool:
        """Enhanced authentication, if the client asked for it; False when it failed and the client was told."""
        if connect.properties.authentication_method is None:
            return True
        refusal = Refusal(reason=ReasonCode.NOT_AUTHORIZED, text="no proof within the deadline")
        with trio.move_on_after(self._services.limits.connect_deadline_s):
            await self._send(encode(self._proof.challenge(), Version.V5))
            packet = await self._receive_first()
            try:
                if isinstance(packet, Auth):
                    self._proof.verify(packet)
                    self._method_agreed = True
                    return True
                if packet is None:
                    return False
                refusal = Refusal(reason=ReasonCode.PROTOCOL_ERROR, text="AUTH is due")
            except RemoteProtocolError as error:
                refusal = Refusal(reason=error.reason, text=error.message)
        self._services.count.refused_connects += 1
        self._note("connect refused", refusal.text)
        await self._refuse(refusal)
        return False

    async def _authenticate_again(self, packet: Auth) -> None:
        """Re-authentication (4.12.1): the proof anew, and whether the client may still be here."""
        if not self._method_agreed:
            raise RemoteProtocolError(
                "AUTH without an authentication method in CONNECT", ReasonCode.PROTOCOL_ERROR
            )
        if packet.reason is ReasonCode.RE_AUTHENTICATE:
            if packet.properties.authentication_method != METHOD or self._proof.open:
                raise RemoteProtocolError("AUTH out of turn", ReasonCode.PROTOCOL_ERROR)
            self.outlet.send_control(encode(self._proof.challenge(), Version.V5))
            return
        self._proof.verify(packet)
        decision = await self._services.guard.may_connect(self)
        if not decision.allowed:
            raise RemoteProtocolError(_told(decision), ReasonCode.NOT_AUTHORIZED)
        self.outlet.send_control(encode(self._proof.verified(), Version.V5))

    async def _admit(self, connect: Connect) -> Terms | None:
        """Weigh a CONNECT; None when it was refused and the client told."""
        refusal = refuse(connect)
        if refusal is None and self._services.registry.full:
            refusal = Refusal(reason=ReasonCode.SERVER_BUSY, text="too many connections")
        if refusal is None and self._services.guard.refusal:
            # Not a verdict on this client: it may come back when the controller answers again.
            refusal = Refusal(
                reason=ReasonCode.SERVER_UNAVAILABLE, text="the broker has no current policy"
            )
        if refusal is None:
            decision = await self._services.guard.may_connect(self)
            if not decision.allowed:
                refusal = Refusal(reason=ReasonCode.NOT_AUTHORIZED, text=_told(decision))
        terms = agree(
            connect,
            limits=self._services.limits,
            offer=self._services.offer,
            principal=self.principal.name,
            assigned_id=self._services.new_client_id(),
        )
        if refusal is None and (
            text := self._services.registry.refusal(self.principal, terms.client_id)
        ):
            refusal = Refusal(reason=ReasonCode.QUOTA_EXCEEDED, text=text)
        if refusal is not None:
            self._services.count.refused_connects += 1
            self._note("connect refused", refusal.text)
            await self._refuse(refusal)
            return None
        return terms

    async def _serve(self, connect: Connect, terms: Terms) -> None:
        services = self._services
        self.client_id = terms.client_id
        self._explain = terms.explain
        self._patience_s = terms.patience_s
        self.outlet = self._make_outlet(
            connect.version,
            max_packet_bytes=terms.max_packet_bytes,
            alias_maximum=terms.topic_alias_maximum,
        )
        self.quiet_until = trio.current_time() + self._patience_s
        session, present, wills = services.registry.enter(self, connect, terms)
        self._note("connected", "", session="resumed" if present else "new")
        try:
            connack = replace(terms.connack, session_present=present)
            self.outlet.send_control(encode(connack, connect.version))
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self.outlet.run_writer)
                with self._scope:
                    await services.registry.publish_wills(wills)
                    services.registry.serve(session)
                    await self._read_on(session)
                nursery.cancel_scope.cancel()
        finally:
            services.count.dropped_slow += self.outlet.dropped
            services.count.bytes_out += self.outlet.sent_bytes
            self.outlet.release()
            await self._farewell(session)

    async def _farewell(self, session: Session) -> None:
        """Tell the client why it is ended, end or leave its session, log; bounded and shielded."""
        if self._ending is None and trio.current_effective_deadline() == -inf:
            self._ending = (ReasonCode.SERVER_SHUTTING_DOWN, "the broker is stopping")
        with trio.CancelScope(shield=True, deadline=trio.current_time() + FAREWELL_S + LEAVE_S):
            if self._ending is not None:
                reason, text = self._ending
                self._note("disconnected", text, reason=f"0x{reason:02x}")
                with trio.move_on_after(FAREWELL_S):
                    await self._say_goodbye(reason, text)
            else:
                self._note("left", "")
            await self._services.registry.leave(self, session)

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

    async def _read_on(self, session: Session) -> None:  # noqa: C901, PLR0912  one loop, so that a run pays for no call
        """The hot loop: read, weigh, route, hand on. Measured with `make bench`, see docs/benchmarks.md.

        INVARIANT: `writes` and `routes` are the same dictionary objects for the connection's life;
        policy changes clear them in place.
        """
        receive, reader = self._link.receive_some, self._reader
        writes, router = self.cache.writes, self._services.publishing.router
        routes, count, me = router.routes, self._services.count, self.outlet
        name = self.principal.name
        touched: list[Outlet] = []
        turn = iter(range(EVENTS_PER_TURN))
        try:
            event = reader.next_event()  # what came together with CONNECT
            while True:
                for _ in turn:
                    if event is None:
                        break
                    if type(event) is Run:
                        count.runs_in += 1
                        count.messages_in += event.count
                        decision, route = writes.get(event.topic), routes.get(event.topic)
                        if decision is None or route is None or not decision.allowed:
                            await self._publish_slowly(event, session, touched)
                        elif not event.qos:
                            self.cache.count_hits(event.count)
                            router.deliver_run(route, event, me, name, touched)
                        else:
                            await self._accept(event, session, touched)
                    elif type(event) is AckRun:
                        self._acknowledged(event.packet_type, event.packet_ids, session, touched)
                    elif not await self._handle(event, session, touched):
                        return
                    event = reader.next_event()
                else:  # others have their turn
                    await self._flush(touched)
                    await trio.lowlevel.checkpoint()
                    turn = iter(range(EVENTS_PER_TURN))
                    continue
                if touched:
                    await self._flush(touched)
                if self._owed > self._receive_maximum:
                    await self._wait_until_settled()
                self.quiet_until = trio.current_time() + self._patience_s
                data = await receive()
                if not data:
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

    async def _flush(self, touched: list[Outlet]) -> None:
        """Write to everyone this read concerned, then wait for those that are over-full."""
        for outlet in touched:
            outlet.flush_now()
        since = None
        for outlet in touched:
            if outlet.over_full and outlet is not self.outlet:
                since = trio.current_time() if since is None else since
                self.quiet_until = inf  # who is not read from is not silent
                await outlet.wait_for_room(since)
        own = self.outlet in touched
        touched.clear()
        if own and self.outlet.congested:
            self.quiet_until = inf
            await self.outlet.wait_for_room(trio.current_time())

    async def _wait_until_settled(self) -> None:
        """A client without a Receive Maximum of its own waits here for the store."""
        self.quiet_until = inf
        while self._owed > self._receive_maximum:
            self._settled = trio.Event()
            await self._settled.wait()

    # ---- messages ------------------------------------------------------------------------------

    async def _publish_slowly(self, run: Run, session: Session, touched: list[Outlet]) -> None:
        """A run whose decision or route is not at hand, that is denied, or that calls a kernel."""
        await self._flush(touched)
        self.quiet_until = inf  # the answer may take its time, and meanwhile nobody listens
        await self._accept(run, session, touched, slowly=True)

    async def _accept(
        self, run: Run, session: Session, touched: list[Outlet], *, slowly: bool = False
    ) -> None:
        """Take a run over, at any QoS, and acknowledge it."""
        if not run.qos:
            await self._take(run, touched, slowly=slowly)
            return
        if (
            self.outlet.congested
        ):  # answers are not dropped: who does not take them is not read from
            self.quiet_until = inf
            await self._flush(touched)
            await self.outlet.wait_until_taken()
        ids = run.packet_ids()
        if run.qos == QOS_2:
            await self._accept_qos_2(run, ids, session, touched, slowly=slowly)
            return
        session.incoming.admit(run.count, self._most_open)
        outcome = await self._take(run, touched, slowly=slowly)
        self._answer(PacketType.PUBACK, ids, outcome, session, touched)

    async def _accept_qos_2(
        self,
        run: Run,
        ids: list[int],
        session: Session,
        touched: list[Outlet],
        *,
        slowly: bool,
    ) -> None:
        incoming = session.incoming
        if not incoming.all_new(ids):
            if run.count > 1:
                for index in range(run.count):
                    one = run.repeated(run.raw(index), 1)
                    await self._accept_qos_2(one, [ids[index]], session, touched, slowly=slowly)
                return
            if not incoming.is_new(ids[0]):  # the same message again (4.3.3-10)
                again = replace(TAKEN, stored=session.kept)  # the first copy may not be on disk yet
                self._answer(PacketType.PUBREC, ids, again, session, touched)
                return
        incoming.admit(run.count, self._most_open)
        outcome = await self._take(run, touched, slowly=slowly)
        if outcome.reason.failed:
            incoming.answered(run.count)
        else:
            incoming.take(ids)
            if session.kept:
                self._services.store.put_received(session.session_id, ids)
                outcome = replace(outcome, stored=True)
        self._answer(PacketType.PUBREC, ids, outcome, session, touched)

    async def _take(self, run: Run, touched: list[Outlet], *, slowly: bool) -> Outcome:
        publishing = self._services.publishing
        if not slowly:
            route = publishing.router.routes.get(run.topic)
            decision = self.cache.writes.get(run.topic)
            if route is not None and decision is not None and decision.allowed:
                self.cache.count_hits(run.count)
                return publishing.hand_on(route, run, self, self.outlet, touched)
        return await publishing.publish(self, run, self.outlet, touched)

    @property
    def _most_open(self) -> int:
        return self._receive_maximum if self._version is Version.V5 else MAX_OPEN

    def _answer(
        self,
        packet_type: PacketType,
        ids: list[int],
        outcome: Outcome,
        session: Session,
        touched: list[Outlet],
    ) -> None:
        """Acknowledge messages, after the store has them and after those before them (4.6.0-2)."""
        if outcome.stored or self._owed:
            self._owed += len(ids)
            self._services.store.when_durable(
                partial(self._answer_durable, packet_type, ids, outcome, session)
            )
            return
        if packet_type is PacketType.PUBACK:
            session.incoming.answered(len(ids))
        if self.outlet.put_control(self._encoded(packet_type, ids, outcome)):
            touched.append(self.outlet)

    def _answer_durable(
        self,
        packet_type: PacketType,
        ids: list[int],
        outcome: Outcome,
        session: Session,
        durable: bool,  # noqa: FBT001  its one fact
    ) -> None:
        self._owed -= len(ids)
        if self._owed <= self._receive_maximum:
            self._settled.set()
        if session.connection is not self:
            return
        if not durable and outcome.stored:
            if (
                packet_type is PacketType.PUBCOMP
            ):  # it has no code for this: the client waits, and so do we
                self._owed += len(ids)
                self._services.store.when_durable(
                    partial(self._answer_durable, packet_type, ids, outcome, session)
                )
                return
            if packet_type is PacketType.PUBREC:
                self._give_back(ids, session)
            if self._version is not Version.V5:
                self.end(ReasonCode.QUOTA_EXCEEDED, FULL.text)  # it has no other way to be told
                return
            outcome = FULL
        if packet_type is PacketType.PUBACK:
            session.incoming.answered(len(ids))
        if self.outlet.put_control(self._encoded(packet_type, ids, outcome)):
            self.outlet.flush_now()

    def _give_back(self, ids: list[int], session: Session) -> None:
        """Forget QoS 2 messages that are refused after all: the next under such an identifier is new (4.3.3-9)."""
        session.incoming.give_back(ids)
        if session.kept:
            self._services.store.drop_received(session.session_id, ids)

    def _encoded(self, packet_type: PacketType, ids: Sequence[int], outcome: Outcome) -> bytes:
        return answer(
            packet_type,
            ids,
            outcome.reason,
            outcome.text if self._explain else "",
            self._version,
            self.outlet.max_packet_bytes,
        )

    # ---- acknowledgements ----------------------------------------------------------------------

    def _acknowledged(
        self,
        packet_type: PacketType,
        ids: Sequence[int],
        session: Session,
        touched: list[Outlet],
    ) -> None:
        """Take acknowledgements that report success."""
        delivery = session.delivery
        match packet_type:
            case PacketType.PUBACK:
                owed = delivery.acknowledged(ids)
            case PacketType.PUBREC:
                owed = delivery.received(ids, self._version)
            case PacketType.PUBCOMP:
                owed = delivery.completed(ids)
            case _:
                owed = False
                self._release(ids, session, touched)
        if owed:
            touched.append(self.outlet)

    def _release(self, ids: Sequence[int], session: Session, touched: list[Outlet]) -> None:
        """Take PUBRELs; PUBCOMP follows when it is on disk that the identifiers are free again (4.3.3-11, -12)."""
        known = session.incoming.release(ids)
        freed = [packet_id for packet_id, was_known in zip(ids, known, strict=True) if was_known]
        if freed and session.kept:
            self._services.store.drop_received(session.session_id, freed)
        if freed:
            outcome = Outcome(reason=ReasonCode.SUCCESS, stored=session.kept)
            self._answer(PacketType.PUBCOMP, freed, outcome, session, touched)
        if len(freed) < len(ids):
            strange = [packet_id for packet_id, ok in zip(ids, known, strict=True) if not ok]
            outcome = Outcome(reason=ReasonCode.PACKET_IDENTIFIER_NOT_FOUND)
            self._answer(PacketType.PUBCOMP, strange, outcome, session, touched)

    async def _handle(
        self, packet: Packet | Run | AckRun, session: Session, touched: list[Outlet]
    ) -> bool:
        """Everything that is neither a run nor a bare acknowledgement; False when the client leaves.

        Answers are not dropped, so a client that does not take them is not read from until it has.
        """
        self.quiet_until = inf
        match packet:
            case Puback() | Pubrec() if packet.reason.failed:
                if session.delivery.refused(packet.packet_id):
                    touched.append(self.outlet)
            case Puback() | Pubrec() | Pubrel() | Pubcomp():
                kind = PacketType[type(packet).__name__.upper()]
                self._acknowledged(kind, (packet.packet_id,), session, touched)
            case Disconnect():
                self._take_leave(packet, session)
                return False
            case _:
                await self._flush(touched)
                if self.outlet.congested:
                    await self.outlet.wait_until_taken()
                await self._serve_request(packet, session, touched)
        return True

    async def _serve_request(
        self, packet: Packet | Run | AckRun, session: Session, touched: list[Outlet]
    ) -> None:
        match packet:
            case Publish():
                self._services.count.messages_in += 1
                run = run_of(packet, self._version)
                await self._accept(run, session, touched, slowly=True)
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
                max_subscriptions=services.limits.max_subscriptions,
            )
        return self._subscriptions

    def _take_leave(self, packet: Disconnect, session: Session) -> None:
        """The client says goodbye: its will is not published, if it says so (3.14.4-3)."""
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

    async def _refuse(self, refusal: Refusal) -> None:
        """CONNACK with a refusal, in the client's version."""
        if self._version == Version.V5:
            properties = Properties(reason_string=refusal.text or None)
            packet = Connack(session_present=False, reason=refusal.reason, properties=properties)
            data = encode(packet, Version.V5)
        else:
            data = encode(Connack(session_present=False, reason=refusal.reason), self._version)
        with trio.move_on_after(FAREWELL_S):
            await self._send(data)

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
            budget=self._services.budget,
            aliases=Aliases(alias_maximum) if alias_maximum else None,
        )

    def _note(self, event: str, text: str, **fields: str) -> None:
        if text:
            fields["detail"] = text
        log.info(
            event, principal=self.principal.name, client=self.client_id, peer=self.peer, **fields
        )


def _told(decision: Decision) -> str:
    """What a refused client is told: the decision's id and nothing about the rules."""
    return f"not authorized, decision {decision.id}"
