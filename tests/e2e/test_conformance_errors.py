"""MQTT 5.0 on the wire: malformed bytes, limits, identifiers, PING, DISCONNECT (sections A and J of docs/conformance.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mqtt.encode import encode
from mqtt.errors import ReasonCode
from mqtt.packets import (
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Publish,
    Pubrec,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Version,
)
from tests.e2e.clients import unique
from tests.e2e.scripted_client import id_of, scripted
from tests.vectors.mqtt.packets import CLIENT, ILLEGAL, V5, V311, Illegal

if TYPE_CHECKING:
    from tests.e2e.scripted_client import Broker

pytest_plugins = ["tests.e2e.conformance"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

BAD, PROTO = ReasonCode.MALFORMED_PACKET, ReasonCode.PROTOCOL_ERROR

FROM_CLIENTS = [vector for vector in ILLEGAL if vector.sender is CLIENT]
CONNECTS = [vector for vector in FROM_CLIENTS if vector.wire[0] == 0x10]
OTHERS_5 = [each for each in FROM_CLIENTS if each not in CONNECTS and each.version is V5]
OTHERS_311 = [each for each in FROM_CLIENTS if each not in CONNECTS and each.version is V311]


def by_name(vector: Illegal) -> str:
    """How a vector is called in the run."""
    return vector.name.replace(" ", "-")


# -- malformed packets and protocol errors


@pytest.mark.parametrize("vector", CONNECTS, ids=by_name)
async def test_illegal_connect_is_refused_with_its_reason(broker: Broker, vector: Illegal) -> None:
    async with scripted(broker, "sensor") as client:
        client.version = vector.version
        await client.send_raw(vector.wire)
        if vector.version is V5:
            await client.expect_refused(vector.reason)
        else:
            await client.expect_refused()


@pytest.mark.parametrize("vector", OTHERS_5, ids=by_name)
async def test_illegal_packet_ends_its_client_with_its_reason(
    broker: Broker, vector: Illegal
) -> None:
    async with scripted(broker, "sensor") as client:
        await client.connect()
        await client.send_raw(vector.wire)
        await client.expect_closed(vector.reason)


@pytest.mark.parametrize("vector", OTHERS_311, ids=by_name)
async def test_illegal_packet_of_3_1_1_ends_its_client_without_a_word(
    broker: Broker, vector: Illegal
) -> None:
    async with scripted(broker, "sensor") as client:
        await client.connect(Connect(client_id=unique("old"), version=Version.V311))
        await client.send_raw(vector.wire)
        await client.expect_closed()


async def test_error_of_one_client_leaves_the_others_alone(broker: Broker, topic: str) -> None:
    async with scripted(broker, "sensor") as good, scripted(broker, "sensor") as bad:
        await good.connect()
        await good.subscribe(topic)
        await bad.connect()
        await bad.send_raw(encode(Publish(topic=topic, payload=b"before"), Version.V5) + b"\0\0")
        await bad.expect_closed(BAD)
        assert (await good.take()).payload == b"before"
        await good.publish(topic, b"after")
        assert (await good.take()).payload == b"after"


async def test_packet_above_the_broker_s_maximum_ends_its_client(
    broker: Broker, topic: str
) -> None:
    async with scripted(broker, "sensor") as client:
        maximum = (await client.connect()).properties.maximum_packet_size
        assert maximum is not None
        fits = maximum - len(encode(Publish(topic=topic), Version.V5)) - 2
        await client.publish(topic, bytes(fits))
        await client.send(Publish(topic=topic, payload=bytes(fits + 1)))
        await client.expect_closed(ReasonCode.PACKET_TOO_LARGE)


async def test_text_with_a_byte_order_mark_keeps_it(broker: Broker, topic: str) -> None:
    marked = f"{topic}/\ufeffmarked"
    pair = ("\ufeffname", "value\ufeff")
    async with scripted(broker, "sensor") as client:
        await client.connect()
        await client.subscribe(f"{topic}/#")
        await client.publish(marked, properties=Properties(user_properties=(pair,)))
        message = await client.take()
        assert (message.topic, message.properties.user_properties) == (marked, (pair,))


# -- limits of what the broker sends


async def test_explanations_are_left_out_where_the_packet_would_be_too_large(
    broker: Broker,
) -> None:
    denied = Subscription(filter="orders/denied")
    requests = (
        Publish(topic="orders/denied", qos=1, packet_id=1),
        Publish(topic="orders/denied", qos=2, packet_id=2),
        Subscribe(packet_id=3, filters=(denied,)),
        Unsubscribe(packet_id=4, filters=("orders/denied",)),
    )
    async with scripted(broker, "sensor") as client:
        greeting = await client.connect()
        smallest = len(encode(greeting, Version.V5)) + 5
        assert smallest < 64, "a limit must let CONNACK through and no explained PUBACK"
    asked = Properties(maximum_packet_size=max(smallest, 40))
    async with scripted(broker, "sensor") as client:
        await client.connect(Connect(client_id=unique("small"), properties=asked))
        await client.send(*requests)
        for request in requests:  # the reader refuses what is larger than was asked for
            answer = await client.receive()
            assert isinstance(answer, Puback | Pubrec | Suback | Unsuback)
            assert answer.packet_id == request.packet_id
        await client.ping()


async def test_packet_without_properties_has_a_property_length_of_0(
    broker: Broker, topic: str
) -> None:
    async with scripted(broker, "sensor") as client:
        await client.connect()
        before = len(client.heard)
        await client.subscribe(topic)
        await client.publish(topic, b"payload")
        await client.unsubscribe(topic)
        raw = topic.encode()
        body = len(raw).to_bytes(2) + raw + b"\0payload"
        assert client.heard[before:] == (
            b"\x90\x04\0\1\0\0" + bytes((0x30, len(body))) + body + b"\xd0\0" + b"\xb0\x04\0\2\0\0"
        )


async def test_broker_s_identifiers_are_never_0_and_never_in_use(
    broker: Broker, topic: str
) -> None:
    count = 8
    async with scripted(broker, "sensor") as client:
        await client.connect()
        await client.subscribe(topic, qos=2)
        open_ids: list[int] = []
        for number in range(3 * count):
            await client.publish(topic, qos=1 + number % 2)
            message = await client.receive_of(Publish)
            assert id_of(message) not in {0, *open_ids}
            if message.qos == 1 and len(open_ids) > count:
                await client.send(Puback(packet_id=id_of(message)))
            else:
                open_ids.append(id_of(message))


# -- PING, DISCONNECT


async def test_pingreq_is_answered(broker: Broker) -> None:
    async with scripted(broker, "sensor") as client:
        await client.connect()
        await client.send(*[Pingreq()] * 5)
        assert [await client.receive() for _ in range(5)] == [Pingresp()] * 5
        await client.expect_nothing()


async def test_nothing_is_done_after_a_disconnect(broker: Broker, topic: str) -> None:
    async with scripted(broker, "viewer") as watcher, scripted(broker, "sensor") as client:
        await watcher.connect()
        await watcher.subscribe(topic)
        await client.connect()
        await client.send(Disconnect(), Publish(topic=topic, payload=b"too late"), Pingreq())
        await client.expect_closed()
        await watcher.expect_nothing()


async def test_bytes_in_any_pieces_mean_the_same(broker: Broker, topic: str) -> None:
    async with scripted(broker, "sensor") as client:
        await client.connect()
        await client.subscribe(topic)
        wire = encode(Publish(topic=topic, payload=b"in pieces"), Version.V5)
        for byte in wire:
            await client.send_raw(bytes((byte,)))
        assert (await client.take()).payload == b"in pieces"
