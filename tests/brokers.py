"""A broker without sockets for tests: real sessions, guard, router and caches; rules decided in process.

async with running_broker(allow("sensor", "write", "topic.t.**")) as broker:
    sensor = await broker.client("sensor")
    await sensor.send(Publish(topic="t/1", payload=b"x"))
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import numpy as np
import trio
import trio.testing

from acl.decide import decide
from acl.model import AccessRequest, Effect, Principal, parse_operations
from acl.rules import AclRule, RuleSet
from broker.admission import Offer
from broker.config import BrokerLimits, MqttConfig
from broker.connection import Connection
from broker.delayed import DelayedPublisher
from broker.durability import Durability, Volatile
from broker.faults import Faults
from broker.guard import Guard
from broker.kernels import KernelDispatch
from broker.messaging import connect_messaging, connect_routing
from broker.records import Restored
from broker.services import Counters, Services
from broker.turns import BUDGET_S, Turns
from cache.authority import Answers
from cache.authorizer import Authorizer
from cache.limits import CacheLimits
from controller.link import PolicyUpdate
from governance.audit import AuditLog
from gpu.errors import FaultCode, KernelFault, PayloadRefused, UnknownKernel
from mqtt.acks import AckRun
from mqtt.encode import encode
from mqtt.packets import (
    Connack,
    Connect,
    Packet,
    PacketType,
    Puback,
    Pubcomp,
    Pubrec,
    Pubrel,
    Role,
    Version,
)
from mqtt.reader import PacketReader
from mqtt.runs import Run

PATIENCE_S = 5.0
LOOKS_A_ROUND = 20
LOOK_S = BUDGET_S / LOOKS_A_ROUND  # what the clock of turns goes on with every look at it
ACKNOWLEDGEMENTS: dict[PacketType, type[Puback | Pubrec | Pubrel | Pubcomp]] = {
    PacketType.PUBACK: Puback,
    PacketType.PUBREC: Pubrec,
    PacketType.PUBREL: Pubrel,
    PacketType.PUBCOMP: Pubcomp,
}
Bytes = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def allow(principal: str, operations: str, resource: str, *, rule_id: str = "") -> AclRule:
    return _rule(principal, operations, resource, Effect.ALLOW, rule_id)


def deny(principal: str, operations: str, resource: str, *, rule_id: str = "") -> AclRule:
    return _rule(principal, operations, resource, Effect.DENY, rule_id)


def _rule(principal: str, operations: str, resource: str, effect: Effect, rule_id: str) -> AclRule:
    return AclRule(
        id=rule_id
        or f"{effect}-{principal}-{operations}-{resource}".replace("*", "any").replace(",", "-"),
        principal=principal,
        resource=resource,
        operations=parse_operations(operations),
        effect=effect,
    )


@dataclass
class RuleAuthority:
    """Decides by a rule set in this process; counts questions; may be told to be silent."""

    rules: RuleSet
    asked: int = 0
    silent: bool = False
    delay_s: float = 0.0

    async def ask(self, requests: Sequence[AccessRequest]) -> Answers:
        if self.silent:
            await trio.sleep_forever()
        await trio.sleep(self.delay_s)
        self.asked += len(requests)
        decisions = tuple(decide(self.rules, request) for request in requests)
        return Answers(self.rules.epoch, decisions)


@dataclass
class PoolOfOne:
    """Stands in for the kernel pool: one kernel `double`, 8 bytes in and out, doubles each byte."""

    name: str = "double"
    nbytes: int = 8
    fault: str = ""
    held: list[tuple[Bytes, Callable[[Bytes | KernelFault], None]]] = field(default_factory=list)
    hold: bool = False
    batches: list[int] = field(default_factory=list[int])

    async def submit(
        self, name: str, payloads: Bytes, done: Callable[[Bytes | KernelFault], None]
    ) -> None:
        await trio.lowlevel.checkpoint()
        if name != self.name:
            raise UnknownKernel(f"no kernel `{name}`")
        if payloads.shape[1] != self.nbytes:
            raise PayloadRefused(f"{payloads.shape[1]} bytes, not {self.nbytes}")
        self.batches.append(len(payloads))
        if self.fault:
            done(KernelFault(self.name, FaultCode.DEADLINE, self.fault))
        elif self.hold:
            self.held.append((payloads.copy(), done))
        else:
            done(payloads * np.uint8(2))

    def release(self) -> None:
        for payloads, done in self.held:
            done(payloads * np.uint8(2))
        self.held.clear()


class StreamLink:
    """A session's link over one end of a memory stream; `send_now` goes through unless `block` was called."""

    def __init__(
        self, outgoing: trio.MemorySendChannel[bytes], incoming: trio.MemoryReceiveChannel[bytes]
    ) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._kept = b""
        self._taking: trio.Event | None = None
        self.closed = trio.Event()

    async def receive_some(self, max_bytes: int = 65_536) -> bytes:
        try:
            return await self._incoming.receive()
        except trio.EndOfChannel:
            return b""

    def send_now(self, data: bytes) -> bool:
        if self.closed.is_set():
            raise trio.BrokenResourceError("closed")
        assert not self._kept, "an earlier send is not finished"
        if self._taking is not None:
            self._kept = bytes(data)
            return False
        self._outgoing.send_nowait(bytes(data))
        return True

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._kept and self._taking is not None:
            await self._taking.wait()
        if self._kept:
            self._outgoing.send_nowait(self._kept)
            self._kept = b""

    def block(self) -> None:
        """The client reads nothing from now on."""
        self._taking = trio.Event()

    def unblock(self) -> None:
        """The client reads again."""
        assert self._taking is not None
        self._taking.set()
        self._taking = None

    async def aclose(self) -> None:
        self.closed.set()
        self._outgoing.close()
        await trio.lowlevel.checkpoint()


class Peer:
    """The client's side of a session, packet by packet."""

    def __init__(
        self,
        link: StreamLink,
        to_broker: trio.MemorySendChannel[bytes],
        from_broker: trio.MemoryReceiveChannel[bytes],
    ) -> None:
        self.link = link
        self._to_broker = to_broker
        self._from_broker = from_broker
        self.version = Version.V5
        self._reader = PacketReader(
            role=Role.CLIENT, max_packet_bytes=1 << 24, topic_alias_maximum=8
        )
        self.bytes_received = 0
        self._events: list[Packet | Run] = []

    async def send(self, *packets: Packet) -> None:
        await self.send_raw(b"".join(encode(packet, self.version) for packet in packets))

    async def send_raw(self, data: bytes) -> None:
        await self._to_broker.send(data)

    async def next(self) -> Packet | Run | None:
        """The next packet or run from the broker; None when it closed."""
        with trio.fail_after(PATIENCE_S):
            while not self._events:
                try:
                    data = await self._from_broker.receive()
                except trio.EndOfChannel:
                    return None
                self.bytes_received += len(data)
                self._reader.version = self.version
                self._reader.feed(data)
                while (event := self._reader.next_event()) is not None:
                    self._events += _packets(event)
        return self._events.pop(0)

    async def leave(self) -> None:
        """Drop the connection without DISCONNECT."""
        await self._to_broker.aclose()

    async def greet(self, connect: Connect) -> Packet | Run | None:
        self.version = connect.version
        await self.send(connect)
        return await self.next()

    async def nothing(self) -> bool:
        """True when the broker has nothing more to say for now."""
        await trio.testing.wait_all_tasks_blocked()
        try:
            return not self._events and self._from_broker.receive_nowait() == b""
        except trio.WouldBlock:
            return True
        except trio.EndOfChannel:
            return False


def _packets(event: Packet | Run | AckRun) -> list[Packet | Run]:
    """Packets one by one, but for runs of QoS 0 messages."""
    if isinstance(event, AckRun):
        packet = ACKNOWLEDGEMENTS[event.packet_type]
        return [packet(packet_id=packet_id) for packet_id in event.packet_ids]
    if isinstance(event, Run) and event.qos:
        return [event.packet(index) for index in range(event.count)]
    return [event]


class TestBroker:
    """See the module's docstring."""

    __test__ = False

    def __init__(
        self,
        nursery: trio.Nursery,
        rules: Sequence[AclRule],
        limits: BrokerLimits,
        audit_path: Path | None,
        *,
        store: Durability | None = None,
        restored: Restored | None = None,
        mqtt: MqttConfig | None = None,
    ) -> None:
        self._nursery = nursery
        mqtt = mqtt or MqttConfig()
        ids = itertools.count(1)
        self.now = 0.0
        self.authority = RuleAuthority(RuleSet(rules, epoch=1))
        self.authorizer = Authorizer(
            self.authority,
            limits=CacheLimits(),
            clock=lambda: 0.0,
            new_id=lambda: f"d-{next(ids):012x}",
        )
        self.audit = AuditLog(audit_path, clock=trio.current_time)
        self.guard = Guard(self.authorizer, self.audit, broker_id="b1", stale_after_s=30.0)
        self.routing = connect_routing(
            self.guard, mqtt, lambda: self.now + trio.current_time(), Faults()
        )
        self.router = self.routing.router
        self.pool = PoolOfOne()
        self.kernels = KernelDispatch(self.pool, self.guard, self.router)
        self.messaging = connect_messaging(
            self.routing,
            guard=self.guard,
            kernels=self.kernels,
            limits=limits,
            store=store or Volatile(),
            keeps_sessions=store is not None,
            restored=restored or Restored(),
            clock=lambda: self.now + trio.current_time(),
        )
        self.registry = self.messaging.registry
        self.publishing = self.messaging.publishing
        names, looks = itertools.count(1), itertools.count(1)
        self.services = Services(
            guard=self.guard,
            publishing=self.publishing,
            registry=self.registry,
            store=self.messaging.store,
            limits=limits,
            offer=Offer(
                keeps_sessions=store is not None,
                response_information=mqtt.response_information,
                accept_mqtt31=mqtt.accept_mqtt31,
            ),
            budget=self.messaging.budget,
            turns=Turns(clock=lambda: next(looks) * LOOK_S),
            broker_id="b1",
            random_bytes=lambda count: bytes(range(count)),
            new_client_id=lambda: f"auto-{next(names)}",
            count=Counters(),
        )

    def stop(self) -> None:
        """What a signal does."""
        self._nursery.cancel_scope.cancel()

    def change_rules(self, rules: RuleSet, *, reset: bool = True) -> None:
        """What the controller's push does."""
        self.authority.rules = rules
        self.guard.on_policy(
            PolicyUpdate(epoch=rules.epoch, reset=reset, grants=tuple(rules.grants))
        )

    def new_epoch(self) -> None:
        """Somebody adds a rule that concerns nobody: what was decided before is void."""
        self.change_rules(
            self.authority.rules.with_rule(allow("nobody", "read", "topic.none", rule_id="nobody")),
            reset=False,
        )

    def slow_controller(self, seconds: float) -> None:
        """Every answer of the authority takes so long from now on."""
        self.authority.delay_s = seconds

    def peer(
        self, principal: str, *, certificate_ends: float = inf, certificate: bytes | None = None
    ) -> Peer:
        """A connection before CONNECT."""
        to_broker, at_broker = trio.open_memory_channel[bytes](inf)
        from_broker, at_client = trio.open_memory_channel[bytes](inf)
        link = StreamLink(from_broker, at_broker)
        who = Principal(principal)
        connection = Connection(
            link,
            principal=who,
            cache=self.authorizer.open(who),
            peer="127.0.0.1:1",
            certificate_ends=certificate_ends,
            services=self.services,
            certificate=certificate,
        )
        self._nursery.start_soon(connection.run)
        return Peer(link, to_broker, at_client)

    async def client(
        self, principal: str, *, version: Version = Version.V5, client_id: str = ""
    ) -> Peer:
        """A connected client."""
        peer = self.peer(principal)
        answer = await peer.greet(
            Connect(client_id=client_id or f"{principal}-client", version=version)
        )
        assert isinstance(answer, Connack)
        assert not answer.reason.failed, answer
        return peer


@asynccontextmanager
async def running_broker(
    *rules: AclRule,
    limits: BrokerLimits | None = None,
    audit_path: Path | None = None,
    store: Durability | None = None,
    restored: Restored | None = None,
    mqtt: MqttConfig | None = None,
) -> AsyncIterator[TestBroker]:
    """A broker in this process in which everybody may connect."""
    everyone = allow("*", "connect", "broker.*", rule_id="everyone-connects")
    async with trio.open_nursery() as nursery:
        broker = TestBroker(
            nursery,
            (everyone, *rules),
            limits or BrokerLimits(),
            audit_path,
            store=store,
            restored=restored,
            mqtt=mqtt,
        )
        await nursery.start(broker.services.turns.run)
        await nursery.start(broker.authorizer.run)
        await nursery.start(broker.kernels.run)
        await nursery.start(broker.routing.waiting.run)
        await nursery.start(broker.messaging.refiller.run)
        nursery.start_soon(DelayedPublisher(broker.publishing, broker.routing.faults).run)
        broker.guard.on_contact(True, "")  # noqa: FBT003  the callback's one fact
        broker.change_rules(broker.authority.rules)
        yield broker
        nursery.cancel_scope.cancel()
