"""Clients for models of the broker, and the rules they live under.

A `Device` keeps MQTT's rules and hears everything; what that should have been is the models' business. Rules
are toggled, and asked of the decider itself: the models are about messages, `test_cache_authorizer` is about rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import trio
import trio.testing
from typing_extensions import override

from acl.decide import decide
from acl.model import AccessRequest, Operation, Principal, Resource
from acl.rules import RuleSet
from mqtt.packets import Connack, Connect, Disconnect, Packet, Properties, Version
from mqtt.runs import Run
from mqtt.topics import matches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acl.rules import AclRule
    from tests.brokers import Peer, TestBroker

P = TypeVar("P")

FOREVER_S = 604_800  # the longest a session is kept
LONG_S, SHORT_S, NOT_KEPT_S = 100_000, 100, 0


@dataclass(eq=False)
class Device:
    """A client program.

    Attributes:
        peer: its connection, None while it has none.
        inbox: what came over this connection and nobody took yet.
    """

    principal: str
    client_id: str
    version: Version = Version.V5
    aliases: int = 0
    peer: Peer | None = None
    inbox: list[Packet] = field(default_factory=list[Packet])

    @override
    def __repr__(self) -> str:
        return f"<{self.client_id}>"

    async def connect(
        self,
        broker: TestBroker,
        nursery: trio.Nursery,
        *,
        clean: bool,
        expiry_s: int,
        window: int = 0,
    ) -> bool:
        """Connect, and say whether the broker still had the session. MQTT 3.1.1 keeps one if not `clean`."""
        older, old_inbox = self.peer, self.inbox
        peer = broker.peer(self.principal)
        peer.version = self.version
        properties = Properties(
            session_expiry_interval=expiry_s,
            receive_maximum=window or None,
            topic_alias_maximum=self.aliases or None,
        )
        self.peer, self.inbox = peer, []
        nursery.start_soon(listen, peer, self.inbox)
        await peer.send(
            Connect(
                client_id=self.client_id,
                clean_start=clean,
                version=self.version,
                properties=properties if self.version is Version.V5 else Properties(),
            )
        )
        await trio.testing.wait_all_tasks_blocked()
        if older is not None:
            assert older.link.closed.is_set(), "one connection a client identifier"
            if self.version is Version.V5:
                assert isinstance(old_inbox[-1], Disconnect)
        connack = self.inbox.pop(0)
        assert isinstance(connack, Connack)
        assert not connack.reason.failed
        return connack.session_present

    async def leave(self, farewell: Disconnect | None = None) -> None:
        """Hang up, with or without a DISCONNECT."""
        assert self.peer is not None
        if farewell is not None:
            await self.peer.send(farewell)
        await self.peer.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert self.peer.link.closed.is_set()
        self.peer = None

    async def send(self, *packets: Packet) -> None:
        """Send packets in one write, and let the broker do all it can."""
        assert self.peer is not None
        if packets:  # no bytes would be the end of the stream
            await self.peer.send(*packets)
        await trio.testing.wait_all_tasks_blocked()

    def take(self, kind: type[P]) -> list[P]:
        """Take the packets of one type out of the inbox."""
        found: list[P] = [packet for packet in self.inbox if isinstance(packet, kind)]
        self.inbox[:] = [packet for packet in self.inbox if not isinstance(packet, kind)]
        return found


async def listen(peer: Peer, inbox: list[Packet]) -> None:
    """Hear everything until the broker hangs up."""
    while True:
        try:
            event = await peer.next()
        except trio.TooSlowError:
            continue  # a model's clock jumps
        if event is None:
            return
        if isinstance(event, Run):
            inbox += [event.packet(index) for index in range(event.count)]
        else:
            inbox.append(event)


class Policy:
    """Rules that are there or not."""

    def __init__(self, always: Sequence[AclRule], toggled: Sequence[AclRule]) -> None:
        self._toggled = list(toggled)
        self.rules = RuleSet(always, epoch=1)

    def toggle(self, broker: TestBroker, index: int) -> None:
        """Add a rule, or remove it."""
        rule = self._toggled[index % len(self._toggled)]
        if rule.id in self.rules:
            self.rules = self.rules.without_rule(rule.id)
        else:
            self.rules = self.rules.with_rule(rule)
        broker.change_rules(self.rules)

    def begin(self, broker: TestBroker) -> None:
        """Make a broker that has just started learn the rules."""
        for rule in broker.authority.rules.rules:
            if rule.id not in self.rules:
                self.rules = self.rules.with_rule(rule)
        broker.change_rules(self.rules)

    def allows(self, principal: str, operation: Operation, topic: str) -> bool:
        request = AccessRequest(Principal(principal), operation, Resource.topic(topic))
        return decide(self.rules, request).allowed


def matching(filter_: str, topic: str) -> bool:
    """Whether a topic matches a filter."""
    return matches(filter_.split("/"), topic.split("/"))


def verify_stored(broker: TestBroker) -> None:
    """Whatever waits for a session that is kept is in the store."""
    for session in broker.registry.all_sessions():
        if session.kept:
            assert all(p.content.message.stored_as for p in session.delivery.outgoing.parcels())
