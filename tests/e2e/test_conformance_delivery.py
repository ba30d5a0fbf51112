"""MQTT 5.0 on the wire: how a message goes out to a subscriber (section F of docs/conformance.md)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from mqtt.errors import ReasonCode
from mqtt.packets import (
    Connect,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscription,
)
from tests.e2e.clients import unique
from tests.e2e.scripted_client import ScriptedClient, a_second_passes, id_of, plain, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.e2e.scripted_client import Broker

pytest_plugins = ["tests.e2e.conformance"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

EVERYTHING = Properties(
    payload_format_indicator=1,
    content_type="text/plain; charset=utf-8",
    response_topic="conf/answers",
    correlation_data=b"\0\1\xff",
    user_properties=(("b", "1"), ("a", "2"), ("b", "1"), ("", "")),
)
"""What is forwarded unaltered, user properties in order and with their duplicates."""


def numbered(count: int, *, first: int = 0) -> list[bytes]:
    """Payloads that show their order."""
    return [b"%d" % number for number in range(first, first + count)]


@asynccontextmanager
async def publisher_of(broker: Broker) -> AsyncGenerator[ScriptedClient]:
    """A connected client that only publishes."""
    async with scripted(broker, "viewer") as client:
        await client.connect()
        yield client


@asynccontextmanager
async def subscriber_of(
    broker: Broker, topic: str, *, qos: int = 2, client_id: str = "", **limits: int
) -> AsyncGenerator[ScriptedClient]:
    """A connected client with one subscription and a session that is kept.

    Args:
        broker: where.
        topic: what it subscribes to.
        qos: at which.
        client_id: a session of before is resumed, and not subscribed again.
        limits: properties of its CONNECT.
    """
    asked = Properties(
        session_expiry_interval=60,
        receive_maximum=limits.get("receive_maximum"),
        maximum_packet_size=limits.get("maximum_packet_size"),
        topic_alias_maximum=limits.get("topic_alias_maximum"),
    )
    async with scripted(broker, "sensor") as client:
        told = await client.connect(
            Connect(
                client_id=client_id or unique("subscriber"), clean_start=False, properties=asked
            )
        )
        if not told.session_present:
            assert await client.subscribe(topic, qos=qos) == (ReasonCode(qos),)
        yield client


# -- what arrives


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_message_arrives_with_every_property_unaltered(
    broker: Broker, topic: str, qos: int
) -> None:
    async with (
        subscriber_of(broker, f"{topic}/+") as subscriber,
        publisher_of(broker) as publisher,
    ):
        await publisher.publish(f"{topic}/a", b"payload", qos=qos, properties=EVERYTHING)
        message = await subscriber.take()
        assert message.qos == qos
        assert plain(message) == Publish(
            topic=f"{topic}/a", payload=b"payload", properties=EVERYTHING
        )


@pytest.mark.parametrize("qos", [1, 2])
async def test_first_delivery_has_an_id_of_its_own_and_no_dup_flag(
    broker: Broker, topic: str, qos: int
) -> None:
    async with subscriber_of(broker, topic) as subscriber, publisher_of(broker) as publisher:
        await publisher.go_through_with(
            Publish(topic=topic, qos=qos, packet_id=4000, dup=True),
            Publish(topic=topic, qos=qos, packet_id=4001, dup=True),
        )
        messages = [await subscriber.receive_of(Publish) for _ in range(2)]
        assert [message.dup for message in messages] == [False, False]
        ids = {id_of(message) for message in messages}
        assert len(ids) == 2
        assert 0 not in ids


async def test_delivery_at_qos_0_is_not_a_duplicate_and_has_no_id(
    broker: Broker, topic: str
) -> None:
    async with (
        subscriber_of(broker, topic, qos=0) as subscriber,
        publisher_of(broker) as publisher,
    ):
        await publisher.send(Publish(topic=topic, qos=1, packet_id=1, dup=True))
        message = await subscriber.receive_of(Publish)
        assert (message.qos, message.dup, message.packet_id) == (0, False, None)


async def test_overlapping_subscriptions_get_one_copy_at_the_highest_qos(
    broker: Broker, topic: str
) -> None:
    async with scripted(broker, "sensor") as subscriber, publisher_of(broker) as publisher:
        await subscriber.connect()
        for number, (wanted, qos) in enumerate(
            ((f"{topic}/#", 0), (f"{topic}/+", 2), (f"{topic}/a", 1)), start=1
        ):
            named = Properties(subscription_identifiers=(number,))
            await subscriber.subscribe(wanted, qos=qos, properties=named)
        await publisher.publish(f"{topic}/a", b"one", qos=2)
        message = await subscriber.take()
        assert (message.payload, message.qos) == (b"one", 2)
        assert sorted(message.properties.subscription_identifiers) == [1, 2, 3]
        await subscriber.expect_nothing()


async def test_message_of_a_subscription_without_identifier_has_none(
    broker: Broker, topic: str
) -> None:
    async with scripted(broker, "sensor") as subscriber, publisher_of(broker) as publisher:
        await subscriber.connect()
        await subscriber.subscribe(f"{topic}/#")
        named = Properties(subscription_identifiers=(268_435_455,))
        await subscriber.subscribe(f"{topic}/a", properties=named)
        for name, identifiers in (("b", ()), ("a", (268_435_455,))):
            await publisher.publish(f"{topic}/{name}")
            message = await subscriber.take()
            assert message.properties.subscription_identifiers == identifiers


# -- expiry


async def test_message_that_expired_while_it_waited_is_not_delivered(
    broker: Broker, topic: str
) -> None:
    client_id = unique("late")
    async with subscriber_of(broker, topic, client_id=client_id) as subscriber:
        await subscriber.drop()
    async with publisher_of(broker) as publisher:
        for payload, interval in ((b"brief", 1), (b"long", 60), (b"for ever", None)):
            limit = Properties(message_expiry_interval=interval)
            await publisher.publish(topic, payload, qos=1, properties=limit)
    await a_second_passes(broker)
    async with subscriber_of(broker, topic, client_id=client_id) as subscriber:
        first, second = await subscriber.take(), await subscriber.take()
        assert (first.payload, second.payload) == (b"long", b"for ever")
        left = first.properties.message_expiry_interval
        assert left is not None
        assert 40 <= left <= 59, "what it waited is taken off"
        assert second.properties.message_expiry_interval is None
        await subscriber.expect_nothing()


async def test_message_delivered_at_once_keeps_its_expiry_interval(
    broker: Broker, topic: str
) -> None:
    async with subscriber_of(broker, topic) as subscriber, publisher_of(broker) as publisher:
        for qos in (0, 1, 2):
            limit = Properties(message_expiry_interval=60)
            await publisher.publish(topic, qos=qos, properties=limit)
            left = (await subscriber.take()).properties.message_expiry_interval
            assert left in {59, 60}


async def test_qos_2_delivery_that_was_begun_is_finished_although_it_expired(
    broker: Broker, topic: str
) -> None:
    client_id = unique("begun")
    brief = Properties(message_expiry_interval=1)
    async with subscriber_of(broker, topic, client_id=client_id) as subscriber:
        async with publisher_of(broker) as publisher:
            await publisher.publish(topic, b"begun", qos=2, properties=brief)
        begun = await subscriber.receive_of(Publish)
        await subscriber.drop()
    await a_second_passes(broker)
    async with subscriber_of(broker, topic, client_id=client_id) as subscriber:
        again = await subscriber.take()
        assert (again.payload, again.dup, id_of(again)) == (b"begun", True, id_of(begun))


# -- what the subscriber can take


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_message_above_the_maximum_packet_size_is_dropped_as_if_it_was_delivered(
    broker: Broker, topic: str, qos: int
) -> None:
    async with (
        subscriber_of(
            broker, topic, qos=qos, maximum_packet_size=200, receive_maximum=1
        ) as subscriber,
        publisher_of(broker) as publisher,
    ):
        for payload in (bytes(300), b"fits", bytes(200), b"fits too"):
            await publisher.publish(topic, payload, qos=qos)
        assert [(await subscriber.take()).payload for _ in range(2)] == [b"fits", b"fits too"]
        await subscriber.expect_nothing()


@pytest.mark.parametrize("maximum", [0, 1, 3])
async def test_aliases_go_out_only_up_to_the_maximum_of_the_client(
    broker: Broker, topic: str, maximum: int
) -> None:
    topics = [f"{topic}/a-rather-long-name-{number}" for number in range(5)]
    async with (
        subscriber_of(broker, f"{topic}/+", topic_alias_maximum=maximum) as subscriber,
        publisher_of(broker) as publisher,
    ):
        for _ in range(3):
            for each in topics:
                await publisher.publish(each, qos=1)
        # The reader refuses an alias above the maximum, and names the topic of one below it.
        got = [(await subscriber.take()).topic for _ in range(15)]
        assert got == topics * 3
        spelled = sum(subscriber.heard.count(each.encode()) for each in topics)
        assert spelled == 15 if not maximum else spelled <= 15


@pytest.mark.parametrize("qos", [1, 2])
async def test_no_more_than_the_receive_maximum_is_under_way(
    broker: Broker, topic: str, qos: int
) -> None:
    payloads = numbered(6)
    async with (
        subscriber_of(broker, topic, receive_maximum=2) as subscriber,
        publisher_of(broker) as publisher,
    ):
        await subscriber.subscribe(f"{topic}/beside")
        for payload in payloads:
            await publisher.publish(topic, payload, qos=qos)
        got = [await subscriber.receive_of(Publish) for _ in range(2)]
        await subscriber.expect_nothing()
        await publisher.publish(f"{topic}/beside", b"at QoS 0")  # other packets go on meanwhile
        assert (await subscriber.receive_of(Publish)).payload == b"at QoS 0"
        await subscriber.publish(f"{topic}/beside", b"own", qos=1)
        assert (await subscriber.take()).payload == b"own"
        for expected in payloads[2:]:
            await finish(subscriber, got.pop(0))
            following = await subscriber.receive_of(Publish)
            assert following.payload == expected
            await subscriber.expect_nothing()
            got.append(following)


async def finish(subscriber: ScriptedClient, message: Publish) -> None:
    """Acknowledge a message to its end."""
    if message.qos == 1:
        await subscriber.send(Puback(packet_id=id_of(message)))
        return
    await subscriber.send(Pubrec(packet_id=id_of(message)))
    assert await subscriber.receive_of(Pubrel) == Pubrel(packet_id=id_of(message))
    await subscriber.send(Pubcomp(packet_id=id_of(message)))


# -- acknowledgements of the subscriber


async def test_qos_2_delivery_goes_through_its_four_steps(broker: Broker, topic: str) -> None:
    async with subscriber_of(broker, topic) as subscriber, publisher_of(broker) as publisher:
        await publisher.publish(topic, b"x", qos=2)
        message = await subscriber.receive_of(Publish)
        await subscriber.expect_nothing()  # nothing more before PUBREC
        await subscriber.send(Pubrec(packet_id=id_of(message)))
        assert await subscriber.receive() == Pubrel(packet_id=id_of(message))
        await subscriber.expect_nothing()
        await subscriber.send(Pubcomp(packet_id=id_of(message)))
        await subscriber.expect_nothing()


async def test_release_is_what_comes_again_after_pubrec(broker: Broker, topic: str) -> None:
    client_id = unique("released")
    async with subscriber_of(broker, topic, client_id=client_id) as subscriber:
        async with publisher_of(broker) as publisher:
            await publisher.publish(topic, b"x", qos=2)
        message = await subscriber.receive_of(Publish)
        await subscriber.send(Pubrec(packet_id=id_of(message)))
        assert await subscriber.receive() == Pubrel(packet_id=id_of(message))
        await subscriber.drop()
    async with subscriber_of(broker, topic, client_id=client_id) as subscriber:
        assert await subscriber.receive() == Pubrel(packet_id=id_of(message))
        await subscriber.send(Pubcomp(packet_id=id_of(message)))
        await subscriber.ping()
        await subscriber.drop()
    async with subscriber_of(broker, topic, client_id=client_id) as subscriber:
        await subscriber.expect_nothing()


async def test_pubrec_for_an_unknown_message_is_answered_so(broker: Broker, topic: str) -> None:
    async with subscriber_of(broker, topic) as subscriber:
        await subscriber.send(Pubrec(packet_id=4711))
        answer = await subscriber.receive()
        assert answer == Pubrel(packet_id=4711, reason=ReasonCode.PACKET_IDENTIFIER_NOT_FOUND)


@pytest.mark.parametrize("qos", [1, 2])
async def test_unacknowledged_messages_come_again_in_order_on_the_next_connection_only(
    broker: Broker, topic: str, qos: int
) -> None:
    client_id = unique("again")
    payloads = numbered(4)
    async with subscriber_of(broker, topic, client_id=client_id) as subscriber:
        async with publisher_of(broker) as publisher:
            for payload in payloads:
                await publisher.publish(topic, payload, qos=qos)
        first = [await subscriber.receive_of(Publish) for _ in payloads]
        await finish(subscriber, first[1])
        await subscriber.expect_nothing()  # nothing comes again on the same connection
        await subscriber.drop()
    async with publisher_of(broker) as publisher:
        await publisher.publish(topic, b"later", qos=qos)
    async with subscriber_of(broker, topic, client_id=client_id) as subscriber:
        again = [await subscriber.take() for _ in range(4)]
        assert [message.payload for message in again] == [b"0", b"2", b"3", b"later"]
        assert [message.dup for message in again] == [True, True, True, False]
        assert [id_of(message) for message in again[:3]] == [
            id_of(message) for message in (first[0], first[2], first[3])
        ]
        await subscriber.expect_nothing()


@pytest.mark.parametrize("qos", [1, 2])
async def test_delivery_that_the_subscriber_refuses_is_over(
    broker: Broker, topic: str, qos: int
) -> None:
    client_id = unique("refusing")
    refused = ReasonCode.QUOTA_EXCEEDED
    async with subscriber_of(broker, topic, client_id=client_id, receive_maximum=1) as subscriber:
        async with publisher_of(broker) as publisher:
            for payload in (b"refused", b"next"):
                await publisher.publish(topic, payload, qos=qos)
        message = await subscriber.receive_of(Publish)
        answer = Pubrec if qos == 2 else Puback
        await subscriber.send(answer(packet_id=id_of(message), reason=refused))
        assert (await subscriber.take()).payload == b"next"
        await subscriber.ping()
        await subscriber.drop()
    async with subscriber_of(broker, topic, client_id=client_id) as subscriber:
        await subscriber.expect_nothing()


# -- order


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_messages_of_a_topic_and_qos_arrive_in_the_order_they_were_sent(
    broker: Broker, topic: str, qos: int
) -> None:
    payloads = numbered(15)
    async with subscriber_of(broker, f"{topic}/#") as subscriber, publisher_of(broker) as publisher:
        await publisher.go_through_with(
            *(
                Publish(
                    topic=f"{topic}/{int(payload) % 2}",
                    payload=payload,
                    qos=qos,
                    packet_id=100 + int(payload) if qos else None,
                )
                for payload in payloads
            )
        )
        got = [await subscriber.receive_of(Publish) for _ in payloads]
        for which in (0, 1):
            on_topic = [m.payload for m in got if m.topic == f"{topic}/{which}"]
            assert on_topic == payloads[which::2]


async def test_message_is_delivered_at_the_lower_of_both_qos(broker: Broker, topic: str) -> None:
    async with scripted(broker, "sensor") as subscriber, publisher_of(broker) as publisher:
        await subscriber.connect()
        for granted in (0, 1, 2):
            await subscriber.subscribe(Subscription(filter=f"{topic}/{granted}", qos=granted))
            for published in (0, 1, 2):
                await publisher.publish(f"{topic}/{granted}", qos=published)
                assert (await subscriber.take()).qos == min(granted, published)
