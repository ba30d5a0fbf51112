"""A broker that is killed at any moment and starts again does as one that was never killed.

Both go through the same history; then the subscriber comes back to the one that lived on, and to one built from the rows
that were recorded. What the client gets must be the same, message by message, with the same identifiers. The one that
was killed does not know what it had sent, so it may set DUP on more messages; that is all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from broker.delayed import DelayedPublisher
from mqtt.packets import Packet, Properties, Puback, Pubcomp, Publish, Pubrec, Pubrel
from tests.brokers import Peer, TestBroker, running_broker
from tests.durable_rows import Rows
from tests.unit.broker.test_messaging import connected, got, subscribe
from tests.unit.broker.test_restore import RULES, everything, life_of

WINDOW = 4


@dataclass(frozen=True)
class Step:
    """What happens next.

    Attributes:
        word: somebody publishes, or the subscriber acknowledges, leaves or comes back.
        qos: of what is published.
        which: of the messages that could be received.
    """

    word: str
    qos: int
    which: int


WORDS = ["publish", "publish", "retain", "delay", "finish", "receive", "leave", "return"]
STEPS = st.lists(
    st.builds(
        Step, word=st.sampled_from(WORDS), qos=st.integers(0, 2), which=st.integers(0, WINDOW - 1)
    ),
    max_size=30,
)


class History:
    """A kept subscriber that does as it is told, and a kept publisher that releases every other message."""

    def __init__(self, broker: TestBroker, sensor: Peer) -> None:
        self.broker = broker
        self.sensor = sensor
        self.viewer: Peer | None = None
        self.open: dict[int, int] = {}  # QoS of unfinished messages by identifier, in order
        self.released: set[int] = set()
        self.published = 0
        self.unreleased: dict[int, bytes] = {}

    async def step(self, step: Step) -> None:
        match step.word:
            case "leave":
                await self.leave()
            case "return" if self.viewer is None:
                self.viewer = await returned(self.broker)
            case "finish":
                await self.finish()
            case "receive":
                await self.receive(step.which)
            case "publish" | "retain" | "delay":
                await self.publish(step)
            case _:
                pass
        await self.look()

    async def leave(self) -> None:
        if self.viewer is not None:
            await self.viewer.leave()
            self.viewer = None
        await trio.testing.wait_all_tasks_blocked()

    async def look(self) -> None:
        """Note what the subscriber has got."""
        await trio.testing.wait_all_tasks_blocked()
        for packet in [] if self.viewer is None else await everything(self.viewer):
            if isinstance(packet, Publish) and packet.packet_id is not None:
                self.open.setdefault(packet.packet_id, packet.qos)

    async def publish(self, step: Step) -> None:
        self.published += 1
        number, qos = self.published, step.qos
        topic = f"t/{number % 3}"
        message = Publish(
            topic=f"$delayed/50/{topic}" if step.word == "delay" else topic,
            payload=b"" if step.word == "retain" and not number % 4 else number.to_bytes(2),
            qos=qos,
            packet_id=number if qos else None,
            retain=step.word == "retain",
        )
        await self.sensor.send(message)
        if qos:
            await self.sensor.next()
        if qos == 2 and number % 2:
            await self.sensor.send(Pubrel(packet_id=number))
            await self.sensor.next()
        elif qos == 2:
            self.unreleased[number] = message.payload

    async def finish(self) -> None:
        """Acknowledge the oldest message for good: what is finished out of turn may come again."""
        if self.viewer is None or not self.open:
            return
        packet_id, qos = next(iter(self.open.items()))
        if qos == 2:
            await self.receive(0)
            await self.viewer.send(Pubcomp(packet_id=packet_id))
        else:
            await self.viewer.send(Puback(packet_id=packet_id))
        del self.open[packet_id]

    async def receive(self, which: int) -> None:
        """PUBREC for a QoS 2 message, in turn or not."""
        waiting = [packet_id for packet_id, qos in self.open.items() if qos == 2]
        if self.viewer is not None and which < len(waiting):
            await self.viewer.send(Pubrec(packet_id=waiting[which]))
            await self.look()


async def returned(broker: TestBroker) -> Peer:
    window = Properties(session_expiry_interval=100, receive_maximum=WINDOW)
    return await connected(broker, "viewer", properties=window, present=True)


async def lived(broker: TestBroker, steps: list[Step]) -> History:
    window = Properties(session_expiry_interval=100, receive_maximum=WINDOW)
    history = History(broker, await connected(broker, "sensor"))
    history.viewer = await connected(broker, "viewer", properties=window)
    await subscribe(history.viewer, "t/#", qos=2)
    for step in steps:
        await history.step(step)
    return history


async def story_of(broker: TestBroker, unreleased: dict[int, bytes]) -> list[Packet]:
    """What follows when both clients come back, the publisher repeats itself, and the subscriber takes everything."""
    broker.now += 60.0
    await DelayedPublisher(broker.publishing, broker.routing.faults).publish_due()
    sensor = await connected(broker, "sensor", present=True)
    for packet_id, payload in unreleased.items():
        again = Publish(topic="t/again", payload=payload, qos=2, packet_id=packet_id, dup=True)
        await sensor.send(again)
        assert await sensor.next() == Pubrec(packet_id=packet_id)
        await sensor.send(Pubrel(packet_id=packet_id))
        assert await sensor.next() == Pubcomp(packet_id=packet_id)
    viewer = await returned(broker)
    story: list[Packet] = []
    while packets := await everything(viewer):
        story += packets
        for packet in packets:
            await finish(viewer, packet)
    late = await broker.client("other")
    await subscribe(late, "t/#")
    kept = [packet for packet in await everything(late) if isinstance(packet, Publish)]
    kept.sort(key=lambda packet: packet.topic)  # they come in no particular order
    return [*story, *(replace(packet, packet_id=None) for packet in kept)]


async def finish(viewer: Peer, packet: Packet) -> None:
    match packet:
        case Publish(qos=1, packet_id=int(packet_id)):
            await viewer.send(Puback(packet_id=packet_id))
        case Publish(qos=2, packet_id=int(packet_id)):
            await viewer.send(Pubrec(packet_id=packet_id))
        case Pubrel():
            await viewer.send(Pubcomp(packet_id=packet.packet_id))
        case _:
            pass


def publishes(story: list[Packet]) -> list[Publish]:
    """The messages; their order among PUBRELs depends on how long it takes to weigh what waited."""
    return [packet for packet in story if isinstance(packet, Publish)]


def releases(story: list[Packet]) -> list[Packet]:
    return [packet for packet in story if isinstance(packet, Pubrel)]


def without_dup(packet: Publish) -> Publish:
    return replace(packet, dup=False)


async def compare(steps: list[Step], *, away: bool) -> None:
    rows = Rows()
    async with running_broker(*RULES, store=rows) as broker:
        history = await lived(broker, steps)
        if away:
            await history.leave()
        killed = rows.after_kill()
        await history.leave()
        await history.sensor.leave()
        await trio.testing.wait_all_tasks_blocked()
        meant = await story_of(broker, history.unreleased)
    async with life_of(killed) as broker:
        found = await story_of(broker, history.unreleased)
        assert broker.publishing.messages.stored == len(killed.messages) == len(killed.retained)
    assert releases(found) == releases(meant)
    messages, meant_messages = publishes(found), publishes(meant)
    assert [without_dup(each) for each in messages] == [
        without_dup(each) for each in meant_messages
    ]
    assert not away or messages == meant_messages
    assert all(
        one.dup or not other.dup for one, other in zip(messages, meant_messages, strict=True)
    )
    assert (killed.queued, killed.released, killed.received, killed.delayed) == (
        {},
        set(),
        set(),
        {},
    )


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_broker_that_was_killed_does_as_one_that_lived_on(steps: list[Step]) -> None:
    trio.run(_compare_connected, steps, clock=frozen_clock())


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_client_that_was_away_cannot_tell_that_the_broker_was_killed(steps: list[Step]) -> None:
    trio.run(_compare_away, steps, clock=frozen_clock())


def frozen_clock() -> trio.abc.Clock:
    """Time stands still while there is anything to do; so a client that waits in vain fails at once."""
    return trio.testing.MockClock(autojump_threshold=0)


async def _compare_connected(steps: list[Step]) -> None:
    await compare(steps, away=False)


async def _compare_away(steps: list[Step]) -> None:
    await compare(steps, away=True)


async def test_story_of_these_tests_has_messages_in_it() -> None:
    rows = Rows()
    async with running_broker(*RULES, store=rows) as broker:
        history = await lived(broker, [Step("publish", qos, 0) for qos in (0, 1, 2)])
        assert list(history.open.values()) == [1, 2]
        viewer = history.viewer
        assert viewer is not None
        await history.publish(Step("publish", 1, 0))
        assert (await got(viewer)).qos == 1
