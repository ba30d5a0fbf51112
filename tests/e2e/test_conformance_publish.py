"""MQTT 5.0 on the wire: what becomes of a client's PUBLISH (section E of docs/conformance.md; F is in `_delivery`)."""

from __future__ import annotations

from dataclasses import replace
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
)
from tests.e2e.clients import unique
from tests.e2e.scripted_client import a_second_passes, scripted

if TYPE_CHECKING:
    from tests.e2e.scripted_client import Broker

pytest_plugins = ["tests.e2e.conformance"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

BAD, PROTO = ReasonCode.MALFORMED_PACKET, ReasonCode.PROTOCOL_ERROR
NAME, DENIED = ReasonCode.TOPIC_NAME_INVALID, ReasonCode.NOT_AUTHORIZED
NOBODY = ReasonCode.NO_MATCHING_SUBSCRIBERS

MANY_ALIASES = 100
"""A broker may allow 65,535 aliases; the first hundred and the last one are tried."""


def publish_bytes(
    *, first: int = 0x30, topic: bytes = b"conf/x", packet_id: bytes = b"", properties: bytes = b""
) -> bytes:
    """A PUBLISH in which anything may be wrong."""
    body = len(topic).to_bytes(2) + topic + packet_id
    body += bytes((len(properties),)) + properties + b"payload"
    return bytes((first, len(body))) + body


# -- well formed or not


@pytest.mark.parametrize(
    ("sent", "reasons"),
    [
        pytest.param(publish_bytes(first=0x36, packet_id=b"\0\1"), (BAD,), id="qos-3"),
        pytest.param(publish_bytes(first=0x38), (BAD, PROTO), id="dup-at-qos-0"),
        pytest.param(publish_bytes(topic=b"conf/\xff"), (BAD,), id="topic-not-utf-8"),
        pytest.param(publish_bytes(topic=b"conf/+"), (NAME, BAD), id="topic-with-plus"),
        pytest.param(publish_bytes(topic=b"conf/#"), (NAME, BAD), id="topic-with-hash"),
        pytest.param(publish_bytes(topic=b""), (PROTO,), id="no-topic-and-no-alias"),
        pytest.param(publish_bytes(first=0x32, packet_id=b"\0\0"), (PROTO, BAD), id="packet-id-0"),
        pytest.param(publish_bytes(properties=b"\x23\0\0"), (ReasonCode.TOPIC_ALIAS_INVALID,), id="alias-0"),
        pytest.param(publish_bytes(properties=b"\x08\0\1\xff"), (BAD,), id="response-topic-not-utf-8"),
        pytest.param(publish_bytes(properties=b"\x08\0\1#"), (NAME, PROTO, BAD), id="response-topic-with-wildcard"),
        pytest.param(publish_bytes(properties=b"\x03\0\1\xff"), (BAD,), id="content-type-not-utf-8"),
    ],
)  # fmt: skip
async def test_publish_that_is_not_well_formed_ends_its_client_and_reaches_nobody(
    broker: Broker, sent: bytes, reasons: tuple[ReasonCode, ...]
) -> None:
    async with scripted(broker, "viewer") as watcher, scripted(broker, "sensor") as client:
        await watcher.connect()
        await watcher.subscribe("conf/x")
        await client.connect()
        await client.send_raw(sent)
        await client.expect_closed(*reasons)
        await watcher.expect_nothing()


# -- topic aliases


async def test_every_alias_up_to_the_announced_maximum_is_accepted(
    broker: Broker, topic: str
) -> None:
    async with scripted(broker, "viewer") as watcher, scripted(broker, "sensor") as client:
        maximum = (await client.connect()).properties.topic_alias_maximum or 0
        assert maximum, "the broker takes no aliases"
        aliases = {*range(1, min(maximum, MANY_ALIASES) + 1), maximum}
        await watcher.connect()
        await watcher.subscribe(f"{topic}/#")
        for alias in aliases:
            named = Properties(topic_alias=alias)
            await client.send(Publish(topic=f"{topic}/{alias}", properties=named))
        for alias in aliases:
            await client.send(Publish(topic="", properties=Properties(topic_alias=alias)))
        await client.ping()
        got = [(await watcher.take()).topic for _ in range(2 * len(aliases))]
        assert got == 2 * [f"{topic}/{alias}" for alias in aliases]


async def test_alias_may_be_given_another_topic_and_carries_any_qos(
    broker: Broker, topic: str
) -> None:
    alias = Properties(topic_alias=1)
    async with scripted(broker, "viewer") as watcher, scripted(broker, "sensor") as client:
        await watcher.connect()
        await watcher.subscribe(f"{topic}/#", qos=2)
        await client.connect()
        for name in ("first", "second"):
            await client.publish(f"{topic}/{name}", properties=alias)
            for qos in (1, 2):
                assert not (await client.publish("", qos=qos, properties=alias)).failed
        got = [await watcher.take() for _ in range(6)]
        assert [message.topic.rpartition("/")[2] for message in got] == ["first"] * 3 + [
            "second"
        ] * 3
        assert {message.properties.topic_alias for message in got} == {None}


async def test_alias_above_the_maximum_is_refused(broker: Broker, topic: str) -> None:
    async with scripted(broker, "sensor") as client:
        maximum = (await client.connect()).properties.topic_alias_maximum or 0
        if maximum == 65_535:
            return  # there is none above
        above = Properties(topic_alias=maximum + 1)
        await client.send(Publish(topic=topic, properties=above))
        await client.expect_closed(ReasonCode.TOPIC_ALIAS_INVALID)


async def test_alias_dies_with_its_connection(broker: Broker, topic: str) -> None:
    kept = Connect(
        client_id=unique("alias"),
        clean_start=False,
        properties=Properties(session_expiry_interval=60),
    )
    alias = Properties(topic_alias=1)
    async with scripted(broker, "sensor") as client:
        await client.connect(kept)
        await client.publish(topic, properties=alias)
        await client.drop()
    async with scripted(broker, "sensor") as client:
        assert (await client.connect(kept)).session_present
        await client.send(Publish(topic="", properties=alias))
        await client.expect_closed(PROTO, ReasonCode.TOPIC_ALIAS_INVALID)


# -- acknowledgements


async def test_publish_is_answered_as_its_qos_asks(broker: Broker, topic: str) -> None:
    async with scripted(broker, "sensor") as client:
        await client.connect()
        await client.subscribe(topic, qos=0)  # so that somebody gets it, and the reason is 0x00
        await client.send(Publish(topic=topic))
        assert await client.receive() == Publish(topic=topic)
        await client.expect_nothing()
        await client.send(Publish(topic=topic, qos=1, packet_id=7))
        assert await client.receive_of(Puback) == Puback(packet_id=7)
        await client.send(Publish(topic=topic, qos=2, packet_id=8))
        assert await client.receive_of(Pubrec) == Pubrec(packet_id=8)
        await client.send(Pubrel(packet_id=8))
        assert await client.receive_of(Pubcomp) == Pubcomp(packet_id=8)


@pytest.mark.parametrize("qos", [1, 2])
async def test_publish_without_a_subscriber_may_say_so_and_succeeds(
    broker: Broker, topic: str, qos: int
) -> None:
    async with scripted(broker, "sensor") as client:
        await client.connect()
        assert await client.publish(topic, qos=qos) in {ReasonCode.SUCCESS, NOBODY}


async def test_more_than_the_receive_maximum_unfinished_ends_the_client(
    broker: Broker, topic: str
) -> None:
    async with scripted(broker, "sensor") as client:
        maximum = (await client.connect()).properties.receive_maximum or 65_535
        for packet_id in range(1, maximum + 1):
            await client.send(Publish(topic=topic, qos=2, packet_id=packet_id))
            assert (await client.receive_of(Pubrec)).packet_id == packet_id
        await client.ping()  # as many as that are allowed
        await client.send(Publish(topic=topic, qos=2, packet_id=maximum + 1))
        await client.expect_closed(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED)


async def test_finished_message_makes_room_in_the_receive_maximum(
    broker: Broker, topic: str
) -> None:
    async with scripted(broker, "sensor") as client:
        maximum = (await client.connect()).properties.receive_maximum or 65_535
        ids = range(1, maximum + 1)
        for packet_id in ids:
            await client.send(Publish(topic=topic, qos=2, packet_id=packet_id))
            await client.receive_of(Pubrec)
        await client.send(Pubrel(packet_id=1))
        assert await client.receive_of(Pubcomp) == Pubcomp(packet_id=1)
        await client.send(Publish(topic=topic, qos=2, packet_id=maximum + 1))
        assert (await client.receive_of(Pubrec)).packet_id == maximum + 1


async def test_qos_1_message_under_an_id_that_was_acknowledged_is_a_new_one(
    broker: Broker, topic: str
) -> None:
    message = Publish(topic=topic, payload=b"same", qos=1, packet_id=3)
    async with scripted(broker, "viewer") as watcher, scripted(broker, "sensor") as client:
        await watcher.connect()
        await watcher.subscribe(topic, qos=1)
        await client.connect()
        for sent in (message, message, replace(message, dup=True)):
            await client.send(sent)
            assert await client.receive() == Puback(packet_id=3)
            assert (await watcher.take()).payload == b"same"


async def test_qos_2_message_is_delivered_once_until_it_is_released(
    broker: Broker, topic: str
) -> None:
    message = Publish(topic=topic, payload=b"once", qos=2, packet_id=3)
    async with scripted(broker, "viewer") as watcher, scripted(broker, "sensor") as client:
        await watcher.connect()
        await watcher.subscribe(topic, qos=2)
        await client.connect()
        for sent in (message, replace(message, dup=True), message):
            await client.send(sent)
            answer = await client.receive_of(Pubrec)
            assert (answer.packet_id, answer.reason.failed) == (3, False)
        await client.send(Pubrel(packet_id=3))
        assert await client.receive() == Pubcomp(packet_id=3)
        assert (await watcher.take()).payload == b"once"
        await watcher.expect_nothing()
        await client.send(message)  # after PUBCOMP the same id is a new message
        assert not (await client.receive_of(Pubrec)).reason.failed
        await client.send(Pubrel(packet_id=3))
        assert await client.receive() == Pubcomp(packet_id=3)
        assert (await watcher.take()).payload == b"once"


async def test_qos_2_message_sent_again_on_the_next_connection_is_the_same(
    broker: Broker, topic: str
) -> None:
    kept = Connect(
        client_id=unique("again"),
        clean_start=False,
        properties=Properties(session_expiry_interval=60),
    )
    message = Publish(topic=topic, payload=b"once", qos=2, packet_id=3)
    async with scripted(broker, "viewer") as watcher:
        await watcher.connect()
        await watcher.subscribe(topic, qos=2)
        async with scripted(broker, "sensor") as client:
            await client.connect(kept)
            await client.send(message)
            assert not (await client.receive_of(Pubrec)).reason.failed
            await client.drop()
        async with scripted(broker, "sensor") as client:
            assert (await client.connect(kept)).session_present
            await client.send(replace(message, dup=True))
            assert not (await client.receive_of(Pubrec)).reason.failed
            await client.send(Pubrel(packet_id=3))
            assert await client.receive() == Pubcomp(packet_id=3)
        assert (await watcher.take()).payload == b"once"
        await watcher.expect_nothing()


async def test_release_of_an_unknown_message_is_answered_so(broker: Broker) -> None:
    async with scripted(broker, "sensor") as client:
        await client.connect()
        await client.send(Pubrel(packet_id=4711))
        answer = await client.receive_of(Pubcomp)
        assert answer.packet_id == 4711
        assert answer.reason is ReasonCode.PACKET_IDENTIFIER_NOT_FOUND


async def test_qos_2_message_that_was_refused_leaves_its_id_free(
    broker: Broker, topic: str
) -> None:
    async with scripted(broker, "viewer") as watcher, scripted(broker, "sensor") as client:
        await watcher.connect()
        await watcher.subscribe(topic, qos=2)
        await client.connect()
        await client.send(Publish(topic="orders/denied", qos=2, packet_id=3))
        assert (await client.receive_of(Pubrec)).reason is DENIED
        await client.send(Publish(topic=topic, payload=b"new", qos=2, packet_id=3))
        assert await client.receive_of(Pubrec) == Pubrec(packet_id=3)
        await client.send(Pubrel(packet_id=3))
        assert await client.receive() == Pubcomp(packet_id=3)
        assert (await watcher.take()).payload == b"new"


async def test_qos_2_exchange_is_finished_although_its_message_expired(
    broker: Broker, topic: str
) -> None:
    brief = Properties(message_expiry_interval=1)
    async with scripted(broker, "sensor") as client:
        await client.connect()
        await client.send(Publish(topic=topic, qos=2, packet_id=3, properties=brief))
        assert not (await client.receive_of(Pubrec)).reason.failed
        await a_second_passes(broker)
        await client.send(Pubrel(packet_id=3))
        assert await client.receive() == Pubcomp(packet_id=3)


# -- whom it reaches


async def test_message_is_added_to_the_session_of_every_matching_subscriber(
    broker: Broker, topic: str
) -> None:
    away = Connect(
        client_id=unique("away"),
        clean_start=False,
        properties=Properties(session_expiry_interval=60),
    )
    async with scripted(broker, "viewer") as late:
        await late.connect(away)
        await late.subscribe(f"{topic}/+", qos=1)
        await late.drop()
    async with (
        scripted(broker, "viewer") as one,
        scripted(broker, "sensor") as other,
        scripted(broker, "viewer") as stranger,
        scripted(broker, "sensor") as client,
    ):
        for watcher, wanted in (
            (one, f"{topic}/#"),
            (other, f"{topic}/a"),
            (stranger, f"{topic}/b"),
        ):
            await watcher.connect()
            await watcher.subscribe(wanted, qos=1)
        await client.connect()
        assert await client.publish(f"{topic}/a", b"to all", qos=1) is ReasonCode.SUCCESS
        for watcher in (one, other):
            assert (await watcher.take()).payload == b"to all"
        await stranger.expect_nothing()
    async with scripted(broker, "viewer") as late:
        assert (await late.connect(away)).session_present
        assert (await late.take()).payload == b"to all"


async def test_message_to_a_topic_its_client_may_not_write_is_refused_and_reaches_nobody(
    broker: Broker,
) -> None:
    topic = f"conf/{unique('forbidden')}"
    async with scripted(broker, "viewer") as watcher, scripted(broker, "bench") as client:
        await watcher.connect()
        await watcher.subscribe(topic, qos=2)
        await client.connect()
        assert await client.publish(topic, qos=1) is DENIED
        assert await client.publish(topic, qos=2) is DENIED
        await client.publish(topic)  # at QoS 0 nobody can be told; it is dropped
        await watcher.expect_nothing()
