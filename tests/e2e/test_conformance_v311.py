"""MQTT 3.1.1 on the wire: what is different there (section K of docs/conformance.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mqtt.errors import ReasonCode
from mqtt.packets import (
    Connack,
    Connect,
    Pingreq,
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
    Version,
    Will,
)
from tests.e2e.clients import unique
from tests.e2e.scripted_client import a_second_passes, id_of, scripted

if TYPE_CHECKING:
    from tests.e2e.scripted_client import Broker

pytest_plugins = ["tests.e2e.conformance"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

V311 = Version.V311


def old(client_id: str = "", *, clean: bool = True, will: Will | None = None) -> Connect:
    """A CONNECT of 3.1.1."""
    return Connect(client_id=client_id or unique("old"), clean_start=clean, version=V311, will=will)


def connect_bytes(*, level: int = 4, flags: int = 2, client_id: bytes = b"a") -> bytes:
    """A CONNECT of 3.1.1 in which anything may be wrong."""
    body = b"\0\4MQTT" + bytes((level, flags)) + b"\0\x3c"
    body += len(client_id).to_bytes(2) + client_id
    return bytes((0x10, len(body))) + body


async def test_connack_has_two_bytes_and_no_properties(broker: Broker) -> None:
    async with scripted(broker, "sensor") as client:
        await client.connect(old())
        assert client.heard == b"\x20\x02\0\0"


async def test_empty_client_id_needs_a_clean_session(broker: Broker) -> None:
    async with scripted(broker, "sensor") as client:
        client.version = V311
        await client.send_raw(connect_bytes(flags=0, client_id=b""))
        answer = await client.expect_refused(ReasonCode.CLIENT_IDENTIFIER_NOT_VALID)
        assert answer is not None
        assert client.heard == b"\x20\x02\0\2"
    async with scripted(broker, "sensor") as client:
        client.version = V311
        await client.send_raw(connect_bytes(flags=2, client_id=b""))
        assert await client.receive() == Connack()


async def test_version_below_is_refused_in_its_own_words(broker: Broker) -> None:
    async with scripted(broker, "sensor") as client:
        client.version = V311
        await client.send_raw(connect_bytes(level=3))
        await client.expect_refused(ReasonCode.UNSUPPORTED_PROTOCOL_VERSION)
        assert client.heard in {b"\x20\x02\0\1", b""}


async def test_acknowledgements_carry_no_reason(broker: Broker, topic: str) -> None:
    async with scripted(broker, "sensor") as client:
        await client.connect(old())
        before = len(client.heard)
        await client.publish(topic, qos=1)
        await client.publish(topic, qos=2)
        await client.unsubscribe(topic)
        assert client.heard[before:] == bytes.fromhex("40020001 50020002 70020002 b0020003")


async def test_suback_says_the_granted_qos_or_0x80(broker: Broker, topic: str) -> None:
    filters = (
        Subscription(filter=f"{topic}/0", qos=0),
        Subscription(filter=f"{topic}/1", qos=1),
        Subscription(filter=f"{topic}/2", qos=2),
        Subscription(filter="orders/denied"),
    )
    async with scripted(broker, "sensor") as client:
        await client.connect(old())
        await client.send(Subscribe(packet_id=9, filters=filters))
        answer = await client.receive()
        assert isinstance(answer, Suback)
        assert bytes(answer.reasons) == bytes((0, 1, 2, 0x80))


async def test_clean_session_ends_with_its_connection(broker: Broker) -> None:
    client_id = unique("old")
    async with scripted(broker, "sensor") as client:
        await client.connect(old(client_id))
        await client.leave()
    async with scripted(broker, "sensor") as client:
        assert not (await client.connect(old(client_id, clean=False))).session_present


async def test_session_that_is_not_clean_is_kept_with_what_waits(
    broker: Broker, topic: str
) -> None:
    client_id = unique("old")
    async with scripted(broker, "sensor") as client:
        assert not (await client.connect(old(client_id, clean=False))).session_present
        await client.subscribe(topic, qos=2)
        await client.leave()
    async with scripted(broker, "viewer") as publisher:
        await publisher.connect()
        await publisher.publish(topic, b"waiting", qos=2)
    async with scripted(broker, "sensor") as client:
        assert (await client.connect(old(client_id, clean=False))).session_present
        first = await client.receive_of(Publish)
        assert (first.payload, first.dup) == (b"waiting", False)
        await client.drop()
    async with scripted(broker, "sensor") as client:
        await client.connect(old(client_id, clean=False))
        again = await client.take()
        assert (again.payload, again.dup, id_of(again)) == (b"waiting", True, id_of(first))
    async with scripted(broker, "sensor") as client:
        assert not (await client.connect(old(client_id))).session_present


async def test_refused_publish_is_dropped_and_acknowledged_like_any_other(broker: Broker) -> None:
    topic = f"conf/{unique('forbidden')}"
    async with scripted(broker, "viewer") as watcher, scripted(broker, "bench") as client:
        await watcher.connect()
        await watcher.subscribe(topic, qos=2)
        await client.connect(old())
        await client.publish(topic)
        await client.send(
            Publish(topic=topic, qos=1, packet_id=1), Publish(topic=topic, qos=2, packet_id=2)
        )
        assert await client.receive() == Puback(packet_id=1)
        assert await client.receive() == Pubrec(packet_id=2)
        await client.send(Pubrel(packet_id=2))
        assert await client.receive() == Pubcomp(packet_id=2)
        await watcher.expect_nothing()


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_message_of_5_0_arrives_without_properties(
    broker: Broker, topic: str, qos: int
) -> None:
    full = Properties(
        content_type="text/plain",
        response_topic="conf/answers",
        message_expiry_interval=60,
        user_properties=(("a", "b"),),
    )
    async with scripted(broker, "sensor") as client, scripted(broker, "viewer") as publisher:
        await client.connect(old())
        await client.subscribe(topic, qos=2)
        await publisher.connect()
        await publisher.publish(topic, b"payload", qos=qos, properties=full)
        message = await client.take()
        assert (message.topic, message.payload, message.qos) == (topic, b"payload", qos)
        assert message.properties == Properties()


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_message_of_3_1_1_reaches_a_subscriber_of_5_0(
    broker: Broker, topic: str, qos: int
) -> None:
    async with scripted(broker, "sensor") as client, scripted(broker, "viewer") as watcher:
        await watcher.connect()
        await watcher.subscribe(topic, qos=2)
        await client.connect(old())
        await client.publish(topic, b"payload", qos=qos)
        message = await watcher.take()
        assert (message.payload, message.qos) == (b"payload", qos)
        assert message.properties == Properties()


async def test_message_that_expired_is_not_delivered_to_3_1_1_either(
    broker: Broker, topic: str
) -> None:
    client_id = unique("old")
    brief = Properties(message_expiry_interval=1)
    async with scripted(broker, "sensor") as client:
        await client.connect(old(client_id, clean=False))
        await client.subscribe(topic, qos=1)
        await client.leave()
    async with scripted(broker, "viewer") as publisher:
        await publisher.connect()
        await publisher.publish(topic, b"brief", qos=1, properties=brief)
        await publisher.publish(topic, b"long", qos=1)
    await a_second_passes(broker)
    async with scripted(broker, "sensor") as client:
        await client.connect(old(client_id, clean=False))
        assert (await client.take()).payload == b"long"
        await client.expect_nothing()
        await client.leave()
    async with scripted(broker, "sensor") as client:
        await client.connect(old(client_id))


async def test_retained_message_reaches_3_1_1_with_its_flag_at_once_only(
    broker: Broker, topic: str
) -> None:
    async with scripted(broker, "sensor") as client:
        await client.connect(old())
        await client.publish(topic, b"kept", qos=1, retain=True)
        await client.subscribe(topic, qos=1)
        assert (await client.take()).retain
        await client.publish(topic, b"next", qos=1, retain=True)
        assert not (await client.take()).retain
        await client.publish(topic, b"", retain=True)


async def test_take_over_and_errors_end_3_1_1_without_a_word(broker: Broker) -> None:
    client_id = unique("old")
    async with scripted(broker, "sensor") as older, scripted(broker, "sensor") as newer:
        await older.connect(old(client_id))
        await newer.connect(old(client_id))
        await older.expect_closed()
        await newer.send_raw(b"\xf0\0")
        await newer.expect_closed()


async def test_will_of_3_1_1_is_published_when_its_client_vanishes_and_only_then(
    broker: Broker, topic: str
) -> None:
    will = Will(topic=topic, payload=b"gone", qos=1)
    async with scripted(broker, "viewer") as watcher:
        await watcher.connect()
        await watcher.subscribe(topic, qos=1)
        async with scripted(broker, "sensor") as client:
            await client.connect(old(will=will))
            await client.leave()
        await watcher.expect_nothing()
        async with scripted(broker, "sensor") as client:
            await client.connect(old(will=will))
            await client.drop()
        assert (await watcher.take()).payload == b"gone"


async def test_silent_client_of_3_1_1_is_ended_without_a_word(broker: Broker) -> None:
    async with scripted(broker, "sensor") as client:
        silent = Connect(client_id=unique("old"), keep_alive=1, version=V311)
        await client.connect(silent)
        await client.send(Pingreq())
        await client.receive()
        await client.expect_closed()


async def test_unsuback_of_3_1_1_comes_whatever_existed(broker: Broker, topic: str) -> None:
    async with scripted(broker, "sensor") as client:
        await client.connect(old())
        await client.subscribe(topic)
        assert await client.unsubscribe(topic, f"{topic}/never") == Unsuback(packet_id=1).reasons
