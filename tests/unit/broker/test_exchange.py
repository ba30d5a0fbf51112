from __future__ import annotations

import pytest
import trio.testing

from broker.config import BrokerLimits
from mqtt.encode import encode
from mqtt.errors import ReasonCode
from mqtt.packets import (
    Connack,
    Connect,
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
    Version,
)
from tests.brokers import Peer, TestBroker, allow, running_broker
from tests.unit.broker.test_messaging import KEPT, SlowStore, got

SENSOR = allow("sensor", "write", "topic.t.**")
VIEWER = allow("viewer", "read", "topic.t.**")
DURABLE, FAILED = True, False


async def kept_subscriber(broker: TestBroker, store: SlowStore, qos: int) -> Peer:
    viewer = broker.peer("viewer")
    await viewer.greet(Connect(client_id="kept", clean_start=False, properties=KEPT))
    await viewer.send(Subscribe(packet_id=1, filters=(Subscription(filter="t/kept", qos=qos),)))
    await trio.testing.wait_all_tasks_blocked()
    store.settle_all(DURABLE)
    assert isinstance(await viewer.next(), Suback)
    return viewer


async def kept_publisher(broker: TestBroker, version: Version = Version.V5) -> Peer:
    sensor = broker.peer("sensor")
    properties = KEPT if version is Version.V5 else Properties()
    connect = Connect(client_id="p", clean_start=False, properties=properties, version=version)
    assert isinstance(await sensor.greet(connect), Connack)
    return sensor


async def test_acknowledgements_keep_the_order_of_messages_also_where_some_wait_for_the_store() -> (
    None
):
    store = SlowStore()
    async with running_broker(SENSOR, VIEWER, store=store) as broker:
        viewer = await kept_subscriber(broker, store, qos=1)
        sensor = await broker.client("sensor")
        await sensor.send(Publish(topic="t/kept", qos=1, packet_id=1))
        await sensor.send(Publish(topic="t/other", qos=1, packet_id=2))
        assert isinstance(await viewer.next(), Publish)
        assert await sensor.nothing(), "the second needs no disk, and waits for the first"
        store.settle_all(DURABLE)
        answers = [await sensor.next(), await sensor.next()]
        assert answers == [
            Puback(packet_id=1),
            Puback(packet_id=2, reason=ReasonCode.NO_MATCHING_SUBSCRIBERS),
        ]


async def test_qos_2_message_refused_by_the_disk_is_forgotten_and_its_identifier_free() -> None:
    store = SlowStore()
    async with running_broker(SENSOR, VIEWER, store=store) as broker:
        sensor = await kept_publisher(broker)
        await sensor.send(Publish(topic="t/1", payload=b"a", qos=2, packet_id=7))
        await trio.testing.wait_all_tasks_blocked()
        store.settle_all(FAILED)
        refused = await sensor.next()
        assert isinstance(refused, Pubrec)
        assert (refused.packet_id, refused.reason) == (7, ReasonCode.QUOTA_EXCEEDED)
        viewer = await broker.client("viewer")
        await viewer.send(Subscribe(packet_id=1, filters=(Subscription(filter="t/1"),)))
        await viewer.next()
        await sensor.send(Publish(topic="t/1", payload=b"b", qos=2, packet_id=7))
        assert (await got(viewer)).payload == b"b"


async def test_release_is_not_answered_before_the_identifier_is_free_on_disk() -> None:
    store = SlowStore()
    async with running_broker(SENSOR, store=store) as broker:
        sensor = await kept_publisher(broker)
        await sensor.send(Publish(topic="t/1", qos=2, packet_id=7))
        await trio.testing.wait_all_tasks_blocked()
        store.settle_all(DURABLE)
        assert isinstance(await sensor.next(), Pubrec)
        await sensor.send(Pubrel(packet_id=7))
        assert await sensor.nothing()
        store.settle_all(FAILED)
        assert await sensor.nothing(), "PUBCOMP has no code for this: it waits"
        store.settle_all(DURABLE)
        assert await sensor.next() == Pubcomp(packet_id=7)


async def test_client_of_3_1_1_whose_message_cannot_be_stored_is_disconnected_unacknowledged() -> (
    None
):
    store = SlowStore()
    async with running_broker(SENSOR, store=store) as broker:
        sensor = await kept_publisher(broker, Version.V311)
        await sensor.send(Publish(topic="t/1", payload=b"x", qos=1, packet_id=1, retain=True))
        await trio.testing.wait_all_tasks_blocked()
        store.settle_all(FAILED)
        assert await sensor.next() is None


async def test_client_of_3_1_1_waits_when_too_much_of_it_waits_for_the_store() -> None:
    store, limits = SlowStore(), BrokerLimits(receive_maximum=2)
    async with running_broker(SENSOR, store=store, limits=limits) as broker:
        sensor = await kept_publisher(broker, Version.V311)
        for packet_id in range(1, 7):
            await sensor.send_raw(
                encode(
                    Publish(topic="t/1", payload=b"x", qos=1, packet_id=packet_id, retain=True),
                    Version.V311,
                )
            )
        await trio.testing.wait_all_tasks_blocked()
        assert broker.services.count.messages_in == 3, "it is not read from"
        while broker.services.count.messages_in < 6:
            store.settle_all(DURABLE)
            await trio.testing.wait_all_tasks_blocked()
        store.settle_all(DURABLE)
        assert [await sensor.next() for _ in range(6)] == [
            Puback(packet_id=packet_id) for packet_id in range(1, 7)
        ]


@pytest.mark.parametrize("kind", [Puback, Pubrec])
async def test_subscriber_that_refuses_a_message_gets_it_no_more(
    kind: type[Puback | Pubrec],
) -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        qos = 1 if kind is Puback else 2
        await viewer.send(Subscribe(packet_id=1, filters=(Subscription(filter="t/1", qos=qos),)))
        await viewer.next()
        await sensor.send(Publish(topic="t/1", qos=qos, packet_id=1))
        message = await got(viewer)
        await viewer.send(kind(packet_id=message.packet_id or 0, reason=ReasonCode.QUOTA_EXCEEDED))
        assert await viewer.nothing()
        assert broker.routing.dead_letters.lost["refused by the subscriber"] == 1


async def test_acknowledgement_of_the_wrong_kind_ends_the_client() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await viewer.send(Subscribe(packet_id=1, filters=(Subscription(filter="t/1", qos=2),)))
        await viewer.next()
        await sensor.send(Publish(topic="t/1", qos=2, packet_id=1))
        message = await got(viewer)
        await viewer.send(Puback(packet_id=message.packet_id or 0))
        goodbye = await viewer.next()
        assert isinstance(goodbye, Disconnect)
        assert goodbye.reason is ReasonCode.PROTOCOL_ERROR
