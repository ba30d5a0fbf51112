"""A broker that is killed between any two steps, whatever of its state was on disk then: acknowledged is kept.

The store is the real one but for its task: it commits when a step says so, into a real file, and a kill loses what was
recorded since. Clients do what MQTT lets them after that: a publisher repeats what was not acknowledged, a subscriber
knows a QoS 2 message by its identifier until it is released.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio
import trio.testing
from hypothesis import example, given, settings, strategies as st
from structlog.testing import capture_logs
from typing_extensions import override

from broker.config import BrokerLimits
from broker.records import MessageRecord, QueuedRecord, Restored
from broker.store_batch import Batch
from broker.store_fetch import fetch
from broker.store_load import load
from broker.store_open import open_database
from broker.store_recorder import Recorder
from broker.store_write import write
from mqtt.packets import (
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
)
from tests.brokers import TestBroker, allow, running_broker
from tests.property.broker_models import LONG_S, Device, matching
from tests.store_records import KEY, ROOM

ROOMY = 10_000  # messages of a queue in memory
TOPICS = ("t/1", "t/2")
FILTERS = ("t/1", "t/#", "+/2")
RULES = (allow("pub", "write", "topic.t.**"), allow("sub", "read", "topic.t.**"))


class Disk(Recorder):
    """A store that commits when it is told to."""

    failing = ""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.fetches = 0
        self._database = open_database(path, key=KEY, synchronous="off", max_bytes=ROOM)

    def load(self, most: int) -> Restored:
        restored, repairs = load(self._database, most=most)
        assert not repairs, "what is on disk is whole after every commit"
        return restored

    def commit(self) -> None:
        batch, self._batch = self._batch, Batch()
        if batch.rows:
            write(self._database, batch)
        for callback in batch.callbacks:
            callback(True)  # noqa: FBT003  a callback's one fact

    def refuse(self) -> None:
        """A commit that fails: everything stays collected."""
        callbacks, self._batch.callbacks = self._batch.callbacks, []
        for callback in callbacks:
            callback(False)  # noqa: FBT003  a callback's one fact

    async def fetch(
        self, session_id: int, sequences: Sequence[int], message_ids: Iterable[int]
    ) -> tuple[dict[int, QueuedRecord], dict[int, MessageRecord]]:
        await trio.lowlevel.checkpoint()
        self.fetches += 1
        return fetch(self._database, session_id, sequences, message_ids)

    def kill(self) -> None:
        """Nothing recorded since the last commit gets on disk any more."""
        self._database.connection.close()


# ---- steps -------------------------------------------------------------------------------------

WHO = st.integers(0, 1)


@dataclass(frozen=True)
class Commit:
    """What was recorded is on disk; or it cannot be written now."""

    works: bool


@dataclass(frozen=True)
class Kill:
    """The broker is gone and starts again; with `deaf` just after a commit of which nobody heard."""

    deaf: bool


@dataclass(frozen=True)
class Come:
    """A subscriber connects, or with 2 the publisher."""

    who: int
    window: int


@dataclass(frozen=True)
class Go:
    """It vanishes."""

    who: int


@dataclass(frozen=True)
class Want:
    """A subscriber subscribes."""

    who: int
    filter: str
    qos: int


@dataclass(frozen=True)
class Drop:
    """A subscriber unsubscribes."""

    who: int
    filter: str


@dataclass(frozen=True)
class Say:
    """Messages are published in one write."""

    topic: str
    qos: int
    count: int


@dataclass(frozen=True)
class Answer:
    """A subscriber acknowledges up to so many packets."""

    who: int
    count: int
    backwards: bool


Step = Commit | Kill | Come | Go | Want | Drop | Say | Answer
COMMIT = st.builds(Commit, st.sampled_from([True, True, True, False]))
SAY = st.builds(Say, st.sampled_from(TOPICS), st.integers(1, 2), st.integers(1, 4))
KILL = st.builds(Kill, st.booleans())
ANSWER = st.builds(Answer, WHO, st.integers(1, 5), st.booleans())
STEPS = st.lists(
    st.one_of(
        COMMIT,
        COMMIT,
        COMMIT,
        KILL,
        KILL,
        st.builds(Come, st.integers(0, 2), st.sampled_from([1, 2, 100])),
        st.builds(Go, st.integers(0, 2)),
        st.builds(Want, WHO, st.sampled_from(FILTERS), st.sampled_from([1, 2, 2])),
        st.builds(Drop, WHO, st.sampled_from(FILTERS)),
        SAY,
        SAY,
        ANSWER,
        ANSWER,
    ),
    min_size=15,
    max_size=60,
)

BEGIN = (Want(0, "t/#", 2), Want(1, "t/1", 1), Commit(works=True))

# ---- clients -----------------------------------------------------------------------------------


@dataclass(eq=False)
class Client:
    """What a client remembers, whatever becomes of the broker; `promised`: its session is on disk."""

    device: Device
    promised: bool = False

    async def come(self, broker: TestBroker, nursery: trio.Nursery, window: int) -> None:
        present = await self.device.connect(
            broker, nursery, clean=False, expiry_s=LONG_S, window=window
        )
        assert present or not self.promised, f"the session of {self.device} is lost"
        self.begin(present=present)

    def begin(self, *, present: bool) -> None:
        """A connection begins."""
        raise NotImplementedError


@dataclass(eq=False)
class Subscriber(Client):
    """Counts how often its application was given each message.

    Attributes:
        sure: filters that are acknowledged, and nothing was asked about them since.
        known: content of QoS 2 messages by the identifiers that are not released.
        under_way: identifiers to be acknowledged on this connection, and by what.
        due: content that was published while a filter was sure, each time that was tried.
    """

    sure: set[str] = field(default_factory=set[str])
    asked: dict[int, str] = field(default_factory=dict[int, str])
    next_id: int = 1
    known: dict[int, bytes] = field(default_factory=dict[int, bytes])
    under_way: dict[int, type[Puback | Pubrec | Pubcomp]] = field(
        default_factory=dict[int, type[Puback | Pubrec | Pubcomp]]
    )
    due: set[bytes] = field(default_factory=set[bytes])
    given: Counter[bytes] = field(default_factory=Counter[bytes])
    at_qos_2: Counter[bytes] = field(default_factory=Counter[bytes])
    last: dict[tuple[str, bytes], bytes] = field(default_factory=dict[tuple[str, bytes], bytes])

    @override
    def begin(self, *, present: bool) -> None:
        self.asked.clear()
        self.under_way.clear()
        if not present:
            self.known.clear()

    def hear(self) -> None:
        for packet in self.device.inbox:
            match packet:
                case Publish(qos=2):
                    self.take_qos_2(packet, packet.packet_id or 0)
                case Publish():
                    self.give(packet)
                    self.under_way[packet.packet_id or 0] = Puback
                case Pubrel():
                    self.known.pop(packet.packet_id, None)
                    self.under_way[packet.packet_id] = Pubcomp
                case Suback():
                    filter_ = self.asked.pop(packet.packet_id)
                    if not packet.reasons[0].failed:  # the disk is full
                        self.promised = True
                        self.sure.add(filter_)
                case Unsuback():
                    self.asked.pop(packet.packet_id)
                case _:
                    raise AssertionError(packet)
        self.device.inbox.clear()

    def take_qos_2(self, packet: Publish, packet_id: int) -> None:
        if packet_id in self.known:
            assert self.known[packet_id] == packet.payload, "taken for another message"
        else:
            self.known[packet_id] = packet.payload
            self.give(packet)
            self.at_qos_2[packet.payload] += 1
            assert self.at_qos_2[packet.payload] == 1, f"{packet.payload!r} is doubled"
        self.under_way[packet_id] = Pubrec

    def give(self, packet: Publish) -> None:
        self.given[packet.payload] += 1
        if self.given[packet.payload] == 1 and packet.payload in self.due:
            stream = packet.topic, packet.payload[:1]
            assert self.last.get(stream, b"") < packet.payload, "in the order of publishing"
            self.last[stream] = packet.payload

    async def want(self, filter_: str, qos: int) -> None:
        packet_id = self.ask(filter_)
        filters = (Subscription(filter=filter_, qos=qos),)
        await self.device.send(Subscribe(packet_id=packet_id, filters=filters))

    async def drop(self, filter_: str) -> None:
        packet_id = self.ask(filter_)
        await self.device.send(Unsubscribe(packet_id=packet_id, filters=(filter_,)))

    def ask(self, filter_: str) -> int:
        self.sure.discard(filter_)
        # An answer to an older question about it says nothing any more.
        self.asked = {key: "" if value == filter_ else value for key, value in self.asked.items()}
        self.next_id += 1
        self.asked[self.next_id] = filter_
        return self.next_id

    async def answer(self, count: int, *, backwards: bool) -> None:
        some = list(self.under_way.items())[:count]
        for packet_id, _ in some:
            del self.under_way[packet_id]
        if backwards:
            some.reverse()
        await self.device.send(*[kind(packet_id=packet_id) for packet_id, kind in some])


@dataclass(eq=False)
class Publisher(Client):
    """Repeats what is not acknowledged.

    Attributes:
        open: what was published by identifier, until PUBACK or PUBREC.
        releasing: identifiers from PUBREC to PUBCOMP.
        acknowledged: content the broker has taken over.
    """

    open: dict[int, Publish] = field(default_factory=dict[int, Publish])
    releasing: dict[int, None] = field(default_factory=dict[int, None])
    acknowledged: set[bytes] = field(default_factory=set[bytes])
    said: int = 0

    @override
    def begin(self, *, present: bool) -> None:
        if not present:
            self.open.clear()
            self.releasing.clear()

    def packets(self, step: Say) -> list[Publish]:
        new: list[Publish] = []
        for _ in range(step.count):
            self.said += 1
            packet_id = next(i for i in range(1, 999) if i not in self.open | self.releasing)
            payload = b"%d-%06d" % (step.qos, self.said)
            packet = Publish(topic=step.topic, payload=payload, qos=step.qos, packet_id=packet_id)
            self.open[packet_id] = packet
            new.append(packet)
        return new

    async def hear(self) -> None:
        release: list[Pubrel] = []
        for packet in self.device.inbox:
            match packet:
                case Puback() | Pubrec() if packet.reason.failed:  # the disk is full
                    del self.open[packet.packet_id]
                case Puback() | Pubrec():
                    if packet.packet_id in self.open:
                        self.acknowledged.add(self.open.pop(packet.packet_id).payload)
                    if isinstance(packet, Pubrec):
                        self.promised = True
                        self.releasing[packet.packet_id] = None
                        release.append(Pubrel(packet_id=packet.packet_id))
                case Pubcomp():
                    self.releasing.pop(packet.packet_id, None)
                case _:
                    raise AssertionError(packet)
        self.device.inbox.clear()
        await self.device.send(*release)


# ---- the model ---------------------------------------------------------------------------------


class Model:
    """All clients, and one life of a broker after the other."""

    def __init__(self, most_in_memory: int) -> None:
        # Nobody waits for a slow subscriber: the broker notices at once who is gone, and the clock stands still.
        self.limits = BrokerLimits(max_queued_messages=most_in_memory, slow_consumer_s=0.0)
        self.subscribers = [Subscriber(Device("sub", "sub-1")), Subscriber(Device("sub", "sub-2"))]
        self.publisher = Publisher(Device("pub", "pub-1"))
        self.clients: list[Client] = [*self.subscribers, self.publisher]

    async def live(self, disk: Disk, steps: Sequence[Step], end: Kill | None) -> None:
        """One life of a broker, until it is killed or everything is done."""
        async with (
            running_broker(
                *RULES,
                store=disk,
                restored=disk.load(self.limits.max_queued_messages),
                limits=self.limits,
            ) as broker,
            trio.open_nursery() as nursery,
        ):
            for step in steps:
                await self.play(step, disk, broker, nursery)
            if end is None:
                await self.finish(disk, broker, nursery)
            elif end.deaf:
                disk.commit()
            disk.kill()
            nursery.cancel_scope.cancel()
        for client in self.clients:
            client.device.peer = None
            client.device.inbox = []

    async def play(self, step: Step, disk: Disk, broker: TestBroker, nursery: trio.Nursery) -> None:
        match step:
            case Commit(works=True):
                disk.commit()
            case Commit():
                disk.refuse()
            case Come():
                await self.come(step.who, step.window, broker, nursery)
            case Go():
                await self.go(self.clients[step.who].device)
            case Want():
                await self.at_hand(step.who, broker, nursery)
                await self.subscribers[step.who].want(step.filter, step.qos)
            case Drop():
                await self.at_hand(step.who, broker, nursery)
                await self.subscribers[step.who].drop(step.filter)
            case Say():
                await self.at_hand(2, broker, nursery)
                await self.say(self.publisher.packets(step))
            case Answer() if self.subscribers[step.who].device.peer is not None:
                await self.subscribers[step.who].answer(step.count, backwards=step.backwards)
            case _:
                pass
        await self.settle()

    async def settle(self) -> None:
        await trio.testing.wait_all_tasks_blocked()
        if self.publisher.device.peer is not None:
            await self.publisher.hear()
        for subscriber in self.subscribers:
            subscriber.hear()

    async def come(self, who: int, window: int, broker: TestBroker, nursery: trio.Nursery) -> None:
        await self.clients[who].come(broker, nursery, window)
        if self.clients[who] is self.publisher:
            releases = [Pubrel(packet_id=packet_id) for packet_id in self.publisher.releasing]
            await self.publisher.device.send(*releases)
            again = [replace(packet, dup=True) for packet in self.publisher.open.values()]
            await self.say(again, again=True)

    async def at_hand(self, who: int, broker: TestBroker, nursery: trio.Nursery) -> None:
        if self.clients[who].device.peer is None:
            await self.come(who, 2, broker, nursery)
            await self.settle()

    async def go(self, device: Device) -> None:
        if device.peer is not None:  # a broker that waits for its disk may notice it later
            await device.peer.leave()
            device.peer = None

    async def say(self, packets: Sequence[Publish], *, again: bool = False) -> None:
        for packet in packets:
            for each in self.subscribers:
                if not any(matching(filter_, packet.topic) for filter_ in each.sure):
                    each.due.discard(packet.payload)
                elif not again:
                    each.due.add(packet.payload)
        await self.publisher.device.send(*packets)

    async def finish(self, disk: Disk, broker: TestBroker, nursery: trio.Nursery) -> None:
        """Have everything acknowledged, and count."""
        disk.commit()
        for who in range(len(self.clients)):
            await self.play(Come(who, 100), disk, broker, nursery)
        for _ in range(self.publisher.said + 10):
            disk.commit()
            await self.settle()
            for subscriber in self.subscribers:
                await subscriber.answer(100, backwards=False)
        assert not self.publisher.open
        assert not self.publisher.releasing
        for subscriber in self.subscribers:
            assert subscriber.due & self.publisher.acknowledged <= subscriber.given.keys()
        assert all(not len(s.delivery.outgoing) for s in broker.registry.all_sessions())
        assert all(s.delivery.overflow is None for s in broker.registry.all_sessions())
        assert broker.publishing.messages.stored == 0


async def play(steps: Sequence[Step], most_in_memory: int) -> None:
    model = Model(most_in_memory)
    life: list[Step] = [*BEGIN]
    with tempfile.TemporaryDirectory() as folder:
        for step in [*steps, None]:
            if step is None or isinstance(step, Kill):
                await model.live(Disk(Path(folder) / "store.db"), life, step)
                life = []
            else:
                life.append(step)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(steps=STEPS)
@example(  # a PUBREL on a second connection while it is not on disk that the first one freed the identifier
    steps=[
        *BEGIN,
        Say("t/1", 2, 1),
        Commit(works=True),
        Commit(works=False),
        Come(2, 1),
        Kill(deaf=False),
        Say("t/1", 2, 1),
    ]
)
@example(  # a repeated PUBLISH while the disk fails: the first copy was taken, and stays so
    steps=[
        *BEGIN,
        Say("t/1", 2, 1),
        Kill(deaf=True),
        Come(2, 1),
        Commit(works=False),
        Kill(deaf=False),
        Say("t/1", 2, 1),
    ]
)
@example(  # a PUBREL on a second connection before the PUBREC of the first is on disk
    steps=[
        Want(0, "t/1", 2),
        Commit(works=True),
        Say("t/1", 2, 1),
        Commit(works=True),
        Answer(0, 1, backwards=False),
        Come(0, 1),
        Kill(deaf=False),
    ]
)
def test_what_was_acknowledged_outlives_the_broker_and_qos_2_is_never_doubled(
    steps: list[Step],
) -> None:
    with capture_logs():
        trio.run(play, steps, ROOMY, clock=trio.testing.MockClock())


@settings(max_examples=80, deadline=None, derandomize=True)
@given(steps=STEPS, most_in_memory=st.integers(1, 3))
@example(  # a kill when a part of a run is finished that is longer than the queue in memory may be
    steps=[
        *BEGIN,
        Come(0, 2),
        Say("t/2", 2, 4),
        Commit(works=True),
        Answer(0, 2, backwards=False),
        Commit(works=True),
        Answer(0, 2, backwards=False),
        Commit(works=True),
        Kill(deaf=False),
    ],
    most_in_memory=1,
)
def test_the_same_holds_where_most_of_a_queue_is_in_the_store_only(
    steps: list[Step], most_in_memory: int
) -> None:
    with capture_logs():
        trio.run(play, steps, most_in_memory, clock=trio.testing.MockClock())
