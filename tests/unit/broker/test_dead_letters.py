from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
import trio.testing

from acl.model import Principal
from broker.config import MqttConfig
from broker.dead_letters import MAX_WAITING, MAX_WAITING_BYTES, REASON_PROPERTY, DeadLetters
from broker.durability import Volatile
from broker.faults import Faults
from broker.messages import Message
from mqtt.encode import encode
from mqtt.packets import (
    Properties,
    Publish,
    Version,
)
from mqtt.runs import Run, run_of
from mqtt.topics import MAX_TOPIC_LEVELS
from tests.brokers import Peer, TestBroker, allow, running_broker
from tests.unit.broker.test_messaging import got, subscribe

READER = allow("viewer", "read", "topic.dead.**")
OTHER = allow("other", "read", "topic.dead.*.u")
SENSOR = Principal("sensor")


def lost(
    topic: str = "t/1",
    *,
    payloads: tuple[bytes, ...] = (b"x",),
    qos: int = 1,
    version: Version = Version.V5,
    properties: Properties | None = None,
) -> Message:
    """A message as it was taken over from a publisher."""
    packets = [
        encode(
            Publish(
                topic=topic,
                payload=payload,
                qos=qos,
                packet_id=1 if qos else None,
                properties=properties or Properties(),
            ),
            version,
        )
        for payload in payloads
    ]
    run = Run.parse(packets[0], version).repeated(b"".join(packets), len(packets))
    return Message(run, publisher=SENSOR, received_at=0.0, expires_at=None)


@asynccontextmanager
async def morgue() -> AsyncGenerator[tuple[TestBroker, DeadLetters, Peer]]:
    """A broker that publishes dead letters, and somebody who reads them."""
    mqtt = MqttConfig(dead_letter_topic="dead")
    async with running_broker(READER, OTHER, mqtt=mqtt) as broker, trio.open_nursery() as nursery:
        letters = broker.routing.dead_letters
        nursery.start_soon(letters.run, broker.router, broker.publishing.messages)
        viewer = await broker.client("viewer")
        await subscribe(viewer, "dead/#", qos=2)
        yield broker, letters, viewer
        nursery.cancel_scope.cancel()


async def test_dead_letter_keeps_payload_and_properties_and_says_why() -> None:
    said = Properties(content_type="text", user_properties=(("a", "1"),), correlation_data=b"c")
    async with morgue() as (_, letters, viewer):
        letters.add(lost(payloads=(b"x",), qos=2, properties=said), 0, 1, "queue full")
        letter = await got(viewer)
        assert letter.topic == "dead/queue-full/t/1"
        assert (letter.payload, letter.qos) == (b"x", 1)
        assert letter.properties.content_type == "text"
        assert letter.properties.correlation_data == b"c"
        assert letter.properties.user_properties == (("a", "1"), (REASON_PROPERTY, "queue full"))
        assert letters.lost["queue full"] == 1


async def test_dead_letter_of_a_3_1_1_publisher_says_why_too() -> None:
    async with morgue() as (_, letters, viewer):
        letters.add(lost(version=Version.V311), 0, 1, "expired")
        letter = await got(viewer)
        assert letter.properties.user_properties == ((REASON_PROPERTY, "expired"),)


async def test_dead_letter_does_not_expire_again() -> None:
    async with morgue() as (_, letters, viewer):
        said = Properties(message_expiry_interval=1)
        letters.add(lost(properties=said), 0, 1, "expired")
        assert (await got(viewer)).properties.message_expiry_interval is None


async def test_only_what_was_lost_of_a_run_becomes_dead_letters() -> None:
    async with morgue() as (_, letters, viewer):
        letters.add(lost(payloads=(b"0", b"1", b"2", b"3")), 1, 2, "queue full")
        assert [(await got(viewer)).payload for _ in range(2)] == [b"1", b"2"]
        assert await viewer.nothing()
        assert letters.lost["queue full"] == 2


async def test_dead_letter_reaches_whom_a_rule_allows_only() -> None:
    async with morgue() as (broker, letters, viewer):
        other = await broker.client("other")
        await subscribe(other, "dead/#")
        letters.add(lost(), 0, 1, "expired")
        letters.add(lost("u"), 0, 1, "expired")
        assert [(await got(viewer)).topic for _ in range(2)] == [
            "dead/expired/t/1",
            "dead/expired/u",
        ]
        assert (await got(other)).topic == "dead/expired/u"
        assert await other.nothing()


async def test_dead_letter_nobody_gets_is_not_published_again() -> None:
    async with morgue() as (_, letters, viewer):
        letters.add(lost("dead/expired/t/1"), 0, 1, "queue full")
        assert await viewer.nothing()
        assert letters.lost["queue full"] == 1


async def test_qos_0_leaves_no_dead_letter() -> None:
    async with morgue() as (_, letters, viewer):
        letters.add(lost(qos=0), 0, 1, "no member")
        assert await viewer.nothing()
        assert letters.lost["no member"] == 1


async def test_topic_with_no_room_for_a_reason_is_counted_and_harms_nobody() -> None:
    async with morgue() as (_, letters, viewer):
        deep, long = "/".join(["t"] * MAX_TOPIC_LEVELS), "t" * 65_535
        for topic in (deep, long):
            letters.add(lost(topic), 0, 1, "expired")
        letters.add(lost(), 0, 1, "expired")
        assert (await got(viewer)).topic == "dead/expired/t/1"
        assert await viewer.nothing()
        assert letters.lost["not published"] == 2
        assert letters.lost["expired"] == 3


async def test_dead_letters_that_wait_are_bounded_in_number_and_bytes() -> None:
    async with running_broker() as broker:
        few = DeadLetters("dead", Faults())
        for _ in range(MAX_WAITING + 3):
            few.add(lost(), 0, 1, "expired")
        assert few.lost["not published"] == 3
        large = DeadLetters("dead", Faults())
        half = lost(payloads=(b"x" * (MAX_WAITING_BYTES // 2 - 100),))
        for _ in range(4):
            large.add(half, 0, 1, "expired")
        assert large.lost["not published"] == 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(large.run, broker.router, broker.publishing.messages)
            await trio.testing.wait_all_tasks_blocked()
            large.add(half, 0, 1, "expired")
            assert large.lost["not published"] == 2, "there is room again"
            nursery.cancel_scope.cancel()


async def test_without_a_topic_what_is_lost_is_counted_only() -> None:
    async with running_broker(READER) as broker, trio.open_nursery() as nursery:
        letters = broker.routing.dead_letters
        nursery.start_soon(letters.run, broker.router, broker.publishing.messages)
        viewer = await broker.client("viewer")
        await subscribe(viewer, "dead/#")
        letters.add(lost(payloads=(b"1", b"2")), 0, 2, "expired")
        assert await viewer.nothing()
        assert letters.lost == {"expired": 2}
        nursery.cancel_scope.cancel()


def test_message_of_this_file_is_one_a_publisher_could_send() -> None:
    run = run_of(Publish(topic="t/1", payload=b"x", qos=1, packet_id=1), Version.V5)
    assert lost().run.data == run.data


async def test_many_dead_letters_leave_others_their_turns() -> None:
    mqtt = MqttConfig(dead_letter_topic="dead")
    async with (
        running_broker(store=Volatile(), mqtt=mqtt) as broker,
        trio.open_nursery() as nursery,
    ):
        run = run_of(Publish(topic="t/1", payload=b"x", qos=1, packet_id=1), Version.V5)
        run = run.repeated(run.data * 5_000, 5_000)
        broker.routing.dead_letters.add(
            broker.publishing.messages.take(run, Principal("sensor")), 0, 5_000, "expired"
        )
        rounds = 0
        nursery.start_soon(
            broker.routing.dead_letters.run, broker.router, broker.publishing.messages
        )
        while broker.router.messages_unrouted < 5_000:
            await trio.lowlevel.checkpoint()
            rounds += 1
        assert rounds > 20
        nursery.cancel_scope.cancel()
