"""Sessions against a model: who gets which message, at which QoS, with which flags, in which order, how often.

After each step the broker has done all it can, so the model knows what every client must have heard. It keeps a
list of entries a session: what it is owed at QoS 1 and 2. An entry that rules denied at any time before it was sent,
or sent again, is *doubtful*: whether the broker looked just then is its own business; it may be sent if the rules of
now allow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto

import trio
import trio.testing
from hypothesis import example, given, settings, strategies as st
from structlog.testing import capture_logs

from acl.model import Operation
from broker.config import BrokerLimits
from broker.durability import Volatile
from mqtt.errors import ReasonCode
from mqtt.packets import (
    Disconnect,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Version,
)
from tests.brokers import TestBroker, allow, deny, running_broker
from tests.durable_rows import Rows
from tests.property.broker_models import (
    FOREVER_S,
    LONG_S,
    NOT_KEPT_S,
    SHORT_S,
    Device,
    Policy,
    matching,
    verify_stored,
)

TOPICS = ("t/1", "t/2", "t/a/b")
FILTERS = ("t/1", "t/2", "t/+", "t/#", "#", "+/a/b")
MESSAGE_S = 50  # Message Expiry Interval
ALWAYS = (allow("*", "read,write", "topic.t.**", rule_id="all"),)
TOGGLED = (
    deny("ann", "read", "topic.t.1"),
    deny("bob", "read", "topic.t.**"),
    deny("ann", "write", "topic.t.2"),
    deny("bob", "read", "topic.t.a.*"),
)

# ---- steps -------------------------------------------------------------------------------------

WHO = st.integers(0, 3)
WITHOUT_EXPIRY = 3  # speaks MQTT 3.1.1: its session is kept unless it is clean


@dataclass(frozen=True)
class Come:
    """A client connects; maybe it was connected."""

    who: int
    clean: bool
    expiry_s: int
    window: int


@dataclass(frozen=True)
class Go:
    """A client hangs up; with `forget` it ends its session by that."""

    who: int
    politely: bool
    forget: bool


@dataclass(frozen=True)
class Want:
    """A client subscribes."""

    who: int
    filter: str
    qos: int
    no_local: bool
    retain_as_published: bool
    handling: int
    identifier: int | None


@dataclass(frozen=True)
class Drop:
    """A client unsubscribes."""

    who: int
    filter: str


@dataclass(frozen=True)
class Say:
    """A client publishes some messages in one write; at QoS 2 it may say all again before it releases them."""

    who: int
    topic: str
    qos: int
    count: int
    retain: bool
    empty: bool
    expires: bool
    again: bool


@dataclass(frozen=True)
class Answer:
    """A client acknowledges up to so many packets, in order or in the opposite order."""

    who: int
    count: int
    backwards: bool
    refuse: bool


@dataclass(frozen=True)
class Toggle:
    """A rule is granted or revoked."""

    rule: int


@dataclass(frozen=True)
class Wait:
    """Time passes."""

    seconds: int


Step = Come | Go | Want | Drop | Say | Answer | Toggle | Wait
COME = st.builds(
    Come,
    WHO,
    st.sampled_from([False, False, True]),
    st.sampled_from([LONG_S, LONG_S, SHORT_S, NOT_KEPT_S]),
    st.sampled_from([1, 2, 100]),
)
GO = st.builds(Go, WHO, st.booleans(), st.sampled_from([False, False, True]))
WANT = st.builds(
    Want,
    WHO,
    st.sampled_from(FILTERS),
    st.integers(0, 2),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2),
    st.sampled_from([None, 1, 300]),
)
DROP = st.builds(Drop, WHO, st.sampled_from(FILTERS))
SAY = st.builds(
    Say,
    WHO,
    st.sampled_from(TOPICS),
    st.integers(0, 2),
    st.integers(1, 4),
    st.sampled_from([False, False, True]),
    st.sampled_from([False, False, False, True]),
    st.sampled_from([False, False, False, True]),
    st.booleans(),
)
ANSWER = st.builds(
    Answer, WHO, st.integers(1, 6), st.booleans(), st.sampled_from([False, False, False, True])
)
TOGGLE = st.builds(Toggle, st.integers(0, len(TOGGLED) - 1))
WAIT = st.builds(Wait, st.sampled_from([60, 200]))
STEPS = st.lists(
    st.one_of(COME, GO, WANT, WANT, DROP, SAY, SAY, SAY, ANSWER, ANSWER, TOGGLE, WAIT),
    min_size=20,
    max_size=70,
)

# ---- the model ---------------------------------------------------------------------------------


class State(Enum):
    """How far an entry is."""

    QUEUED = auto()
    SENT = auto()
    RELEASED = auto()


@dataclass(eq=False)
class Entry:
    """One message as one session is to get it; `here` says that it was sent on this connection."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    identifiers: tuple[int, ...]
    expires_at: float | None
    state: State = State.QUEUED
    packet_id: int = 0
    here: bool = False
    doubtful: bool = False


@dataclass(eq=False)
class Kept:
    """What the broker owes a session."""

    device: Device
    expiry_s: int
    window: int
    away_since: float | None = None
    filters: dict[str, Want] = field(default_factory=dict[str, Want])
    entries: list[Entry] = field(default_factory=list[Entry])
    at_qos_0: list[Entry] = field(default_factory=list[Entry])
    releases: list[int] = field(default_factory=list[int])

    @property
    def connected(self) -> bool:
        return self.away_since is None

    def owe(self, entry: Entry) -> bool:
        """Whether the session gets it."""
        if not entry.qos and self.connected:
            self.at_qos_0.append(entry)
        elif entry.qos and (self.connected or self.expiry_s):
            self.entries.append(entry)
        else:
            return False
        return True

    def under_way(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.here]


class Model:
    """All sessions and the retained messages."""

    def __init__(self, broker: TestBroker, nursery: trio.Nursery) -> None:
        self.broker = broker
        self.nursery = nursery
        self.policy = Policy(ALWAYS, TOGGLED)
        self.policy.begin(broker)
        self.devices = [
            Device("ann", "ann-1"),
            Device("ann", "ann-2", aliases=2),
            Device("bob", "bob-1"),
            Device("bob", "bob-311", version=Version.V311),
        ]
        self.sessions: dict[Device, Kept] = {}
        self.retained: dict[str, Publish] = {}
        self.retained_until: dict[str, float] = {}
        self.said = 0

    async def play(self, step: Step) -> None:
        match step:
            case Come():
                await self.come(step)
            case Go():
                await self.go(step)
            case Want():
                await self.want(step)
            case Drop():
                await self.drop(step)
            case Say():
                await self.say(step)
            case Answer():
                await self.answer(step)
            case Toggle():
                self.toggle(step)
            case Wait():
                await self.wait(step)
        await trio.testing.wait_all_tasks_blocked()
        self.check()

    # ---- connections ---------------------------------------------------------------------------

    async def come(self, step: Come) -> None:
        device = self.devices[step.who]
        old_one = device.version is Version.V311
        expiry_s = step.expiry_s if not old_one else 0 if step.clean else FOREVER_S
        window = 65_535 if old_one else step.window
        known = self.sessions.get(device)
        kept = known is not None and known.expiry_s and not step.clean
        present = await device.connect(
            self.broker, self.nursery, clean=step.clean, expiry_s=expiry_s, window=window
        )
        assert present == bool(kept)
        if known is None or not kept:
            self.sessions[device] = Kept(device, expiry_s, window)
            return
        known.expiry_s, known.window, known.away_since = expiry_s, window, None
        known.releases.clear()
        self.gone(known)

    def gone(self, session: Kept) -> None:
        """Its connection is gone: what it was sent is to come again."""
        for entry in session.entries:
            entry.here = False
            allowed = self.policy.allows(session.device.principal, Operation.READ, entry.topic)
            entry.doubtful = entry.doubtful or not allowed

    async def at_hand(self, who: int) -> Kept:
        """The session of a client, connected."""
        device = self.devices[who]
        if device.peer is None:
            await self.come(Come(who, clean=False, expiry_s=LONG_S, window=2))
            self.check()
        return self.sessions[device]

    async def go(self, step: Go) -> None:
        device = self.devices[step.who]
        session = self.sessions.get(device)
        if device.peer is None or session is None:
            return
        expiry_s = 0 if step.forget and device.version is Version.V5 else None
        goodbye = Disconnect(properties=Properties(session_expiry_interval=expiry_s))
        await device.leave(goodbye if step.politely else None)
        if not session.expiry_s or (step.politely and expiry_s == 0):
            del self.sessions[device]
            return
        session.away_since = self.broker.now
        self.gone(session)

    async def wait(self, step: Wait) -> None:
        self.broker.now += step.seconds
        now = self.broker.now
        for each in self.broker.registry.all_sessions():
            if each.connection is None:
                self.broker.registry._look_after(each, now)  # what the sweeper does
        for device, session in list(self.sessions.items()):
            if not session.connected and now >= (session.away_since or 0) + session.expiry_s:
                del self.sessions[device]
            session.entries = [
                entry
                for entry in session.entries
                if entry.state is not State.QUEUED or not _expired(entry.expires_at, now)
            ]
        for topic, until in list(self.retained_until.items()):
            if _expired(until, now):
                del self.retained[topic], self.retained_until[topic]

    # ---- subscriptions -------------------------------------------------------------------------

    async def want(self, step: Want) -> None:
        session = await self.at_hand(step.who)
        device, v5 = session.device, session.device.version is Version.V5
        subscription = Subscription(
            filter=step.filter,
            qos=step.qos,
            no_local=v5 and step.no_local,
            retain_as_published=v5 and step.retain_as_published,
            retain_handling=step.handling if v5 else 0,
        )
        identifiers = (step.identifier,) if step.identifier and v5 else ()
        properties = Properties(subscription_identifiers=identifiers)
        await device.send(Subscribe(packet_id=9, filters=(subscription,), properties=properties))
        (suback,) = device.take(Suback)
        if suback.reasons[0].failed:
            return
        assert suback.reasons[0] == step.qos
        is_new = step.filter not in session.filters
        session.filters[step.filter] = step
        if subscription.retain_handling == 0 or (subscription.retain_handling == 1 and is_new):
            self.replay(session, step, identifiers)

    def replay(self, session: Kept, step: Want, identifiers: tuple[int, ...]) -> None:
        for topic, message in self.retained.items():
            allowed = self.policy.allows(session.device.principal, Operation.READ, topic)
            if allowed and matching(step.filter, topic):
                qos = min(step.qos, message.qos)
                until = self.retained_until.get(topic)
                session.owe(Entry(topic, message.payload, qos, True, identifiers, until))  # noqa: FBT003

    async def drop(self, step: Drop) -> None:
        session = await self.at_hand(step.who)
        await session.device.send(Unsubscribe(packet_id=9, filters=(step.filter,)))
        (unsuback,) = session.device.take(Unsuback)
        was_there = session.filters.pop(step.filter, None) is not None
        if session.device.version is Version.V5:
            assert (unsuback.reasons[0] == ReasonCode.SUCCESS) == was_there

    # ---- messages ------------------------------------------------------------------------------

    async def say(self, step: Say) -> None:
        session = await self.at_hand(step.who)
        device, v5 = session.device, session.device.version is Version.V5
        packets = [self.packet(step, number, v5=v5) for number in range(1, step.count + 1)]
        allowed = self.policy.allows(device.principal, Operation.WRITE, step.topic)
        heard = [allowed and self.heard(session, packet) for packet in packets]
        await device.send(*packets)
        if step.qos == 1:
            acks = device.take(Puback)
            assert [ack.packet_id for ack in acks] == [p.packet_id for p in packets]
            if v5:
                reasons = [ack.reason for ack in acks]
                assert reasons == [_told(step, allowed=allowed, heard=each) for each in heard]
        elif step.qos == 2:
            await self.release(step, device, packets, allowed=allowed)

    async def release(
        self, step: Say, device: Device, packets: Sequence[Publish], *, allowed: bool
    ) -> None:
        ids = [packet.packet_id or 0 for packet in packets]
        for again in (False, True):
            received = device.take(Pubrec)
            assert [each.packet_id for each in received] == ids
            if not allowed and device.version is Version.V5:
                assert {each.reason for each in received} == {ReasonCode.NOT_AUTHORIZED}
                return
            if again or not step.again or not allowed:
                break
            await device.send(*[_repeated(packet) for packet in packets])
        await device.send(*[Pubrel(packet_id=packet_id) for packet_id in ids])
        completed = device.take(Pubcomp)
        assert [each.packet_id for each in completed] == ids
        if device.version is Version.V5:
            assert {each.reason for each in completed} == {ReasonCode.SUCCESS}

    def packet(self, step: Say, number: int, *, v5: bool) -> Publish:
        self.said += 1
        return Publish(
            topic=step.topic,
            payload=b"" if step.empty else b"%06d" % self.said,
            qos=step.qos,
            retain=step.retain,
            packet_id=number if step.qos else None,
            properties=Properties(
                message_expiry_interval=MESSAGE_S if step.expires and v5 else None
            ),
        )

    def heard(self, sender: Kept, packet: Publish) -> bool:
        """Note who is owed a message; whether anybody is."""
        until = self.broker.now + MESSAGE_S if packet.properties.message_expiry_interval else None
        if packet.retain:
            self.retained.pop(packet.topic, None)
            self.retained_until.pop(packet.topic, None)
            if packet.payload:
                self.retained[packet.topic] = packet
                if until is not None:
                    self.retained_until[packet.topic] = until
        heard = False
        for session in self.sessions.values():
            wants = [w for w in session.filters.values() if matching(w.filter, packet.topic)]
            principal = session.device.principal
            if not wants or not self.policy.allows(principal, Operation.READ, packet.topic):
                continue
            v5 = session.device.version is Version.V5
            if v5 and session is sender and all(want.no_local for want in wants):
                continue
            entry = Entry(
                packet.topic,
                packet.payload,
                min(packet.qos, max(want.qos for want in wants)),
                v5 and packet.retain and any(want.retain_as_published for want in wants),
                tuple(sorted(want.identifier for want in wants if want.identifier and v5)),
                until,
            )
            heard = session.owe(entry) or heard
        return heard

    async def answer(self, step: Answer) -> None:
        device = self.devices[step.who]
        session = self.sessions.get(device)
        if session is None or not session.connected:
            return
        refuse = step.refuse and device.version is Version.V5
        reason = ReasonCode.UNSPECIFIED_ERROR if refuse else ReasonCode.SUCCESS
        some = session.under_way()[: step.count]
        packets: list[Puback | Pubrec | Pubcomp] = []
        for entry in reversed(some) if step.backwards else some:
            if entry.state is State.RELEASED:
                packets.append(Pubcomp(packet_id=entry.packet_id))
            elif entry.qos == 1:
                packets.append(Puback(packet_id=entry.packet_id, reason=reason))
            else:
                packets.append(Pubrec(packet_id=entry.packet_id, reason=reason))
            if entry.state is State.SENT and entry.qos == 2 and not refuse:
                entry.state = State.RELEASED
                session.releases.append(entry.packet_id)
            else:
                session.entries.remove(entry)
        await device.send(*packets)

    def toggle(self, step: Toggle) -> None:
        self.policy.toggle(self.broker, step.rule)
        for session in self.sessions.values():
            for entry in session.entries:
                if not self.policy.allows(session.device.principal, Operation.READ, entry.topic):
                    entry.doubtful = entry.doubtful or not entry.here

    # ---- checks --------------------------------------------------------------------------------

    def check(self) -> None:
        """Compare what every client heard with what it was owed."""
        verify_stored(self.broker)
        for session in self.sessions.values():
            if session.connected:
                self.check_one(session)

    def check_one(self, session: Kept) -> None:
        for packet in session.device.inbox:
            match packet:
                case Publish(qos=0):
                    _expect_at_qos_0(session, packet)
                case Publish(dup=True):
                    assert self.policy.allows(
                        session.device.principal, Operation.READ, packet.topic
                    )
                    _expect_again(session, packet.packet_id or 0, State.SENT)
                case Publish():
                    self.expect_first(session, packet)
                case Pubrel() if packet.packet_id in session.releases:
                    session.releases.remove(packet.packet_id)
                case Pubrel():
                    _expect_again(session, packet.packet_id, State.RELEASED)
                case _:
                    raise AssertionError(packet)
            assert len(session.under_way()) <= session.window
        session.device.inbox.clear()
        assert not session.at_qos_0
        assert not session.releases
        if len(session.under_way()) < session.window:
            waiting = [entry for entry in session.entries if not entry.here]
            assert all(e.doubtful and e.state is not State.RELEASED for e in waiting), waiting
            session.entries = session.under_way()  # those were denied when their turn came

    def expect_first(self, session: Kept, packet: Publish) -> None:
        """A message that was never sent before: the next of its topic and QoS."""
        assert self.policy.allows(session.device.principal, Operation.READ, packet.topic)
        entries = session.entries
        older = [e for e in entries if e.state is not State.QUEUED and not e.here]
        assert all(e.doubtful and e.state is State.SENT for e in older), "old ones come first"
        for entry in older:
            entries.remove(entry)
        assert packet.packet_id not in [e.packet_id for e in entries if e.here]
        for entry in [e for e in entries if e.state is State.QUEUED]:
            if (entry.topic, entry.qos) != (packet.topic, packet.qos):
                continue
            entries.remove(entry)
            if entry.payload == packet.payload and not _differs(entry, packet):
                entry.state, entry.here, entry.doubtful = State.SENT, True, False
                entry.packet_id = packet.packet_id or 0
                # In the order of sending, in which all comes again.
                entries.insert(len(session.under_way()), entry)
                return
            assert entry.doubtful, f"{entry} is left out for {packet}"
        raise AssertionError(f"nobody owed {packet} to {session.device}")

    async def finish(self) -> None:
        """Bring everybody back, acknowledge everything: nothing more comes, nothing is left."""
        for who, device in enumerate(self.devices):
            if device in self.sessions:
                await self.play(Come(who, clean=False, expiry_s=LONG_S, window=3))
            while device in self.sessions and self.sessions[device].entries:
                await self.play(Answer(who, 3, backwards=False, refuse=False))
        assert all(not len(s.delivery.outgoing) for s in self.broker.registry.all_sessions())
        assert self.broker.messaging.budget.used_bytes == 0
        retained = self.broker.publishing.retained
        for topic in [topic for some in retained.look("#") for topic in some]:
            retained.get(topic)  # an expired one goes when somebody asks for it
        assert self.broker.publishing.messages.stored == len(self.retained)


def _expect_at_qos_0(session: Kept, packet: Publish) -> None:
    entry = next(e for e in session.at_qos_0 if e.topic == packet.topic)
    assert entry.payload == packet.payload
    assert not _differs(entry, packet)
    session.at_qos_0.remove(entry)


def _expect_again(session: Kept, packet_id: int, state: State) -> None:
    """What comes on a new connection is what was unfinished, in its order."""
    for entry in [e for e in session.entries if not e.here]:
        if (entry.packet_id, entry.state) == (packet_id, state):
            entry.here, entry.doubtful = True, False
            return
        assert entry.doubtful, f"{entry} is left out"
        assert entry.state is not State.RELEASED
        session.entries.remove(entry)
    raise AssertionError(f"{packet_id} is not owed again")


def _differs(entry: Entry, packet: Publish) -> bool:
    identifiers = tuple(sorted(packet.properties.subscription_identifiers))
    return (entry.retain, entry.identifiers) != (packet.retain, identifiers)


def _repeated(packet: Publish) -> Publish:
    return Publish(
        topic=packet.topic,
        payload=packet.payload,
        qos=packet.qos,
        retain=packet.retain,
        dup=True,
        packet_id=packet.packet_id,
        properties=packet.properties,
    )


def _told(step: Say, *, allowed: bool, heard: bool) -> ReasonCode:
    if not allowed:
        return ReasonCode.NOT_AUTHORIZED
    return ReasonCode.SUCCESS if heard or step.retain else ReasonCode.NO_MATCHING_SUBSCRIBERS


def _expired(until: float | None, now: float) -> bool:
    return until is not None and until <= now


async def play(steps: Sequence[Step], limits: BrokerLimits, store: Volatile) -> None:
    async with (
        running_broker(store=store, limits=limits) as broker,
        trio.open_nursery() as nursery,
    ):
        model = Model(broker, nursery)
        for step in steps:
            await model.play(step)
        await model.finish()
        for session in broker.registry.all_sessions():
            assert session.delivery.overflow is None
        nursery.cancel_scope.cancel()


@settings(max_examples=110, deadline=None, derandomize=True)
@given(steps=STEPS)
@example(  # denied while one part of a parcel was sent and the other was not
    steps=[
        Want(0, "t/1", 1, False, False, 0, None),  # noqa: FBT003
        Say(0, "t/1", 1, 3, False, False, False, False),  # noqa: FBT003
        Toggle(0),
        Come(0, clean=False, expiry_s=LONG_S, window=100),
    ]
)
def test_every_session_gets_what_it_is_owed_and_nothing_else(steps: list[Step]) -> None:
    with capture_logs():
        trio.run(play, steps, BrokerLimits(), Volatile(), clock=trio.testing.MockClock())


def _above_qos_0(step: Step) -> Step:
    """The step for sessions that are kept: nothing they wait for depends on how full their queues in memory are.

    QoS 0 would be dropped, and retained messages would come when there is room.
    """
    match step:
        case Come():
            clean = step.clean and step.who != WITHOUT_EXPIRY
            return replace(step, clean=clean, expiry_s=max(step.expiry_s, SHORT_S))
        case Say():
            return replace(step, qos=max(step.qos, 1), retain=False)
        case Want():
            return replace(step, qos=max(step.qos, 1))
        case _:
            return step


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    steps=STEPS.map(lambda steps: [_above_qos_0(step) for step in steps]), most=st.integers(1, 3)
)
def test_sessions_get_the_same_where_most_of_a_queue_is_in_the_store_only(
    steps: list[Step], most: int
) -> None:
    # Nobody waits for a slow subscriber: the clock stands still.
    limits = BrokerLimits(max_queued_messages=most, slow_consumer_s=0.0)
    rows = Rows()
    with capture_logs():
        trio.run(play, steps, limits, rows, clock=trio.testing.MockClock())
    assert not rows.queued
