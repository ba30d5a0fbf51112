"""One connected MQTT client, from its CONNECT to its end.

*Theory of operation.* One task reads; it feeds the reader, and every event is weighed, routed and
answered in that task, so a client's messages stay in order, and a client that sends faster than its
subscribers read is held back by not being read. A run of QoS 0 packets costs one L1 look-up, one
route look-up and one slice handed on, whatever its count (`_read_on`); everything that may have to
wait is in `_publish_slowly`. A second task, the outlet's writer, carries what the socket did not
take at once.

*Rules of this file*: whatever a client does wrong ends that client only, with the reason code of
the standard. Denied QoS 0 messages are dropped and audited; denied QoS 1 messages are answered 0x87
with the decision id. Sessions end with the connection, and CONNACK says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

import structlog
import trio
from typing_extensions import override

from broker.admission import V311_REFUSALS, Refusal, Terms, agree, refuse
from broker.delivery import Delivery
from broker.kernels import KERNEL_PREFIX, CallBook
from broker.outlet import Link, Outlet
from broker.subscriptions import Subscriptions
from mqtt.encode import encode
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Publish,
    Subscribe,
    Unsubscribe,
    Version,
    Will,
)
from mqtt.reader import PacketReader, Role
from mqtt.runs import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from acl.decide import Decision
    from acl.model import Principal
    from broker.config import BrokerLimits
    from broker.guard import Guard
    from broker.kernels import KernelDispatch
    from broker.registry import Registry
    from broker.router import Router
    from cache.connection import ConnectionCache
    from mqtt.packets import Packet

log = structlog.get_logger("stockade.broker.session")

FAREWELL_S = 1.0  # seconds a last packet (CONNACK refusal, DISCONNECT) may take to leave
WILL_S = 5.0  # seconds the will of a broken client may take to be weighed and routed
# Packets and runs of one client handled in a row. One read may hold 32,000 PINGREQs at 20 us each;
# with this bound the others wait for 5 ms at most, and a checkpoint costs a run-of-one 2 % of its time.
EVENTS_PER_TURN = 256
PACKET_OVERHEAD_BYTES = 16  # of PUBACK and DISCONNECT beside their reason string, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What all sessions of a broker share."""

    guard: Guard
    router: Router
    registry: Registry
    kernels: KernelDispatch
    limits: BrokerLimits
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
    publish_denied: int = 0
    dropped_slow: int = 0
    dropped_queue: int = 0


class Session:
    """One client.

    Attributes:
        principal: from the client's certificate.
        peer: the client's address.
        certificate_ends: second since the epoch at which the certificate expires.
        client_id: the MQTT client identifier, once agreed.
        quiet_until: monotonic second at which silence becomes a timeout; inf while we do not listen.
        cache: this connection's L1.
        outlet: the way out; exists once the CONNECT was read.
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
            role=Role.SERVER, max_packet_bytes=services.limits.max_packet_bytes
        )
        self._scope = trio.CancelScope()
        self._ending: tuple[ReasonCode, str] | None = None
        self._will: Will | None = None
        self._explain = True
        self._version = Version.V5
        self._ended = False
        self.calls = CallBook(self._close_cache_when_idle)
        self.outlet = self._outlet(Version.V5, max_packet_bytes=services.limits.max_packet_bytes)
        self._delivery = Delivery(self.outlet, receive_maximum=1, max_queued=1, max_queued_bytes=1)
        self._subscriptions = Subscriptions(
            self,
            guard=services.guard,
            router=services.router,
            max_subscriptions=services.limits.max_subscriptions,
        )

    @override
    def __repr__(self) -> str:
        return f"<Session {self.principal.name}/{self.client_id} from {self.peer}>"

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
            if connect is not None and (terms := await self._admit(connect)) is not None:
                await self._serve(connect, terms)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._note("connection broken", str(error))
        finally:
            self._ended = True
            self._close_cache_when_idle()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + FAREWELL_S):
                await self._link.aclose()

    @property
    def dropped_from_queue(self) -> int:
        """QoS 1 messages dropped for this client."""
        return self._delivery.dropped

    def end(self, reason: ReasonCode, text: str) -> None:
        """Disconnect the client with a reason; the first one counts."""
        if self._ending is None:
            self._ending = (reason, text)
        self._scope.cancel()

    async def _receive_connect(self) -> Connect | None:
        """The CONNECT packet; None when the peer left or sent something else."""
        while True:
            data = await self._link.receive_some()
            if not data:
                return None
            try:
                self._reader.feed(data)
                packet = self._reader.next_event()
            except RemoteProtocolError as error:
                self._services.count.protocol_errors += 1
                self._note("protocol error before CONNECT", str(error))
                await self._refuse(Refusal(reason=error.reason, text=error.message))
                return None
            if isinstance(packet, Connect):
                self._version = packet.version
                return packet

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
        if refusal is not None:
            self._services.count.refused_connects += 1
            self._note("connect refused", refusal.text)
            await self._refuse(refusal)
            return None
        return agree(
            connect,
            limits=self._services.limits,
            assigned_id=self._services.new_client_id(),
        )

    async def _serve(self, connect: Connect, terms: Terms) -> None:
        self.client_id = terms.client_id
        self._explain = terms.explain
        self._patience_s = terms.patience_s
        self._will = connect.will
        self.outlet = self._outlet(connect.version, max_packet_bytes=terms.max_packet_bytes)
        self._delivery = Delivery(
            self.outlet,
            receive_maximum=terms.receive_maximum,
            max_queued=self._services.limits.max_queued_messages,
            max_queued_bytes=self._services.limits.max_queued_bytes,
        )
        self.quiet_until = trio.current_time() + self._patience_s
        self._services.registry.enter(self)
        self._note("connected", "")
        try:
            self.outlet.send_control(encode(terms.connack, connect.version))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.outlet.run_writer)
                with self._scope:
                    await self._read_on()
                nursery.cancel_scope.cancel()
        finally:
            self._services.registry.leave(self)
            self._subscriptions.close()
            self._services.count.dropped_slow += self.outlet.dropped
            self._services.count.dropped_queue += self._delivery.dropped
            self._services.count.bytes_out += self.outlet.sent_bytes
            self.outlet.release()
            await self._farewell()

    async def _farewell(self) -> None:
        """Tell the client why it is ended, publish its will, log; bounded and shielded."""
        if self._ending is None and trio.current_effective_deadline() == -inf:
            self._ending = (ReasonCode.SERVER_SHUTTING_DOWN, "the broker is stopping")
        with trio.CancelScope(shield=True, deadline=trio.current_time() + FAREWELL_S + WILL_S):
            if self._ending is not None:
                reason, text = self._ending
                self._note("disconnected", text, reason=f"0x{reason:02x}")
                with trio.move_on_after(FAREWELL_S):
                    await self._say_goodbye(reason, text)
            else:
                self._note("left", "")
            if self._will is not None:
                with trio.move_on_after(WILL_S):
                    await self._publish_will(self._will)

    async def _say_goodbye(self, reason: ReasonCode, text: str) -> None:
        if self._version != Version.V5:
            return  # 3.1.1 has no DISCONNECT from the server
        goodbye = Disconnect(reason=reason, properties=self._explained(text))
        try:
            await self._link.flush()
            await self._send(encode(goodbye, self._version))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._note("goodbye not delivered", str(error))

    # ---- reading -------------------------------------------------------------------------------

    async def _read_on(self) -> None:  # noqa: C901, PLR0912  one loop, so that a run pays for no call
        """The hot loop: read, weigh, route, hand on. Measured with `make bench`, see docs/benchmarks.md.

        INVARIANT: `writes` and `routes` are the same dictionary objects for the session's life;
        policy changes clear them in place.
        """
        receive, reader = self._link.receive_some, self._reader
        writes, router = self.cache.writes, self._services.router
        routes, count, me = router.routes, self._services.count, self.outlet
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
                        if decision is not None and route is not None and decision.allowed:
                            self.cache.count_hits(event.count)
                            router.deliver_run(route, event, me, touched)
                        else:
                            await self._publish_slowly(event, touched)
                    elif not await self._handle(event, touched):
                        return
                    event = reader.next_event()
                else:  # others have their turn
                    await self._flush(touched)
                    await trio.lowlevel.checkpoint()
                    turn = iter(range(EVENTS_PER_TURN))
                    continue
                await self._flush(touched)
                self.quiet_until = trio.current_time() + self._patience_s
                data = await receive()
                if not data:
                    return
                count.bytes_in += len(data)
                reader.feed(data)
                event = reader.next_event()
        except RemoteProtocolError as error:
            count.protocol_errors += 1
            self._ending = (error.reason, error.message)
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
            if outlet.over_full:
                since = trio.current_time() if since is None else since
                self.quiet_until = inf  # who is not read from is not silent
                await outlet.wait_for_room(since)
        touched.clear()

    async def _publish_slowly(self, run: Run, touched: list[Outlet]) -> None:
        """A run whose decision or route is not at hand, that is denied, or that calls a kernel."""
        await self._flush(touched)
        self.quiet_until = inf  # the answer may take its time, and meanwhile nobody listens
        services = self._services
        decision = await services.guard.may_publish(self, run.topic, count=run.count)
        if not decision.allowed:
            services.count.publish_denied += run.count
            return
        if run.topic.startswith(KERNEL_PREFIX):
            await services.kernels.call_run(self, run)
            return
        route = await services.router.route(run.topic)
        services.router.deliver_run(route, run, self.outlet, touched)

    async def _handle(self, packet: Packet | Run, touched: list[Outlet]) -> bool:
        """Everything that is not a run; False when the client leaves.

        Answers are not dropped, so a client that does not take them is not read from until it has.
        """
        self.quiet_until = inf
        if self.outlet.over_full:
            await self._flush(touched)
            await self.outlet.wait_until_taken()
        match packet:
            case Publish():
                await self._flush(touched)
                await self._publish(packet, touched)
            case Puback():
                if self._delivery.acknowledged(packet.packet_id):
                    touched.append(self.outlet)
            case Subscribe():
                await self._flush(touched)
                await self._subscriptions.subscribe(packet, explain=self._explain)
            case Unsubscribe():
                self._subscriptions.unsubscribe(packet)
            case Pingreq():
                self.outlet.send_control(encode(Pingresp(), self._version))
            case Disconnect():
                if packet.reason == ReasonCode.SUCCESS:  # any other keeps the will (3.1.2.5)
                    self._will = None
                return False
            case _:
                raise RemoteProtocolError(
                    f"unexpected {type(packet).__name__.upper()}", ReasonCode.PROTOCOL_ERROR
                )
        return True

    # ---- single messages -----------------------------------------------------------------------

    async def _publish(self, publish: Publish, touched: list[Outlet]) -> None:
        """A message that is not part of a run: QoS 1, or with the retain flag."""
        self._verify_served(publish)
        count = self._services.count
        count.messages_in += 1
        topic = publish.topic.encode()
        decision = await self._services.guard.may_publish(self, topic)
        if not decision.allowed:
            count.publish_denied += 1
            self._acknowledge(publish, ReasonCode.NOT_AUTHORIZED, _told(decision))
            return
        if topic.startswith(KERNEL_PREFIX):
            refusal = await self._services.kernels.call_one(self, publish)
            if refusal is None:
                self._acknowledge(publish, ReasonCode.SUCCESS, "")
            else:
                self._acknowledge(publish, refusal.reason, refusal.text)
            return
        route = await self._services.router.route(topic)
        delivered = self._services.router.deliver(route, publish, self.outlet, touched)
        await self._flush(touched)
        self._acknowledge(
            publish, ReasonCode.SUCCESS if delivered else ReasonCode.NO_MATCHING_SUBSCRIBERS, ""
        )

    def _verify_served(self, publish: Publish) -> None:
        if publish.qos > 1:
            raise RemoteProtocolError("QoS 2 is not available", ReasonCode.QOS_NOT_SUPPORTED)
        if publish.retain and self._version == Version.V5:
            raise RemoteProtocolError(
                "retained messages are not available", ReasonCode.RETAIN_NOT_SUPPORTED
            )

    def _acknowledge(self, publish: Publish, reason: ReasonCode, text: str) -> None:
        if publish.packet_id is None:
            return
        puback = Puback(
            packet_id=publish.packet_id, reason=reason, properties=self._explained(text)
        )
        self.outlet.send_control(encode(puback, self._version))

    def deliver(self, publish: Publish, *, qos: int, retain: bool) -> bool:
        """Queue one message to this client; True when its outlet needs a flush."""
        return self._delivery.deliver(publish, qos=qos, retain=retain)

    async def _publish_will(self, will: Will) -> None:
        """The will, weighed like any other message of this client."""
        publish = Publish(
            topic=will.topic,
            payload=will.payload,
            qos=will.qos,
            retain=False,
            dup=False,
            packet_id=None,
            # Not a property of a PUBLISH. The session ends now, and with it the delay (3.1.3.2.2).
            properties=replace(will.properties, will_delay_interval=None),
        )
        topic = will.topic.encode()
        decision = await self._services.guard.may_publish(self, topic)
        if not decision.allowed or topic.startswith(KERNEL_PREFIX):
            return
        touched: list[Outlet] = []
        route = await self._services.router.route(topic)
        self._services.router.deliver(route, publish, self.outlet, touched)
        await self._flush(touched)

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
            data = bytes((0x20, 2, 0, V311_REFUSALS.get(refusal.reason, 5)))
        with trio.move_on_after(FAREWELL_S):
            await self._send(data)

    async def _send(self, data: bytes) -> None:
        if not self._link.send_now(data):
            await self._link.flush()

    def _explained(self, text: str) -> Properties:
        """The reason string, if the client wants one and takes packets of that size (3.4.2-2)."""
        if text and self._explain and self._version == Version.V5:
            size = len(text.encode()) + PACKET_OVERHEAD_BYTES
            if size <= self.outlet.max_packet_bytes:
                return Properties(reason_string=text)
        return Properties()

    def _outlet(self, version: Version, *, max_packet_bytes: int) -> Outlet:
        limits = self._services.limits
        return Outlet(
            self._link,
            version=version,
            max_packet_bytes=max_packet_bytes,
            max_queued_bytes=limits.max_queued_bytes,
            slow_consumer_s=limits.slow_consumer_s,
            stuck_consumer_s=limits.stuck_consumer_s,
            broken=lambda text: self.end(ReasonCode.UNSPECIFIED_ERROR, text),
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
