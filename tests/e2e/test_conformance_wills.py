"""MQTT 5.0 on the wire: wills, when they are published and when they are not (section D of docs/conformance.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mqtt.errors import ReasonCode
from mqtt.packets import Connect, Properties, Subscription, Will
from tests.e2e.clients import unique
from tests.e2e.scripted_client import ScriptedClient, a_second_passes, plain, scripted

if TYPE_CHECKING:
    from tests.e2e.scripted_client import Broker

pytest_plugins = ["tests.e2e.conformance"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]


def mortal(
    topic: str,
    *,
    client_id: str = "",
    qos: int = 1,
    retain: bool = False,
    delay_s: int | None = None,
    expiry_s: int | None = None,
    clean_start: bool = True,
) -> Connect:
    """A client with a will."""
    return Connect(
        client_id=client_id or unique("mortal"),
        clean_start=clean_start,
        will=Will(
            topic=topic,
            payload=b"gone",
            qos=qos,
            retain=retain,
            properties=Properties(will_delay_interval=delay_s),
        ),
        properties=Properties(session_expiry_interval=expiry_s),
    )


async def watch(watcher: ScriptedClient, topic: str, *, qos: int = 2) -> None:
    """Connect and subscribe, with the retain flag as it was published."""
    await watcher.connect()
    await watcher.subscribe(Subscription(filter=topic, qos=qos, retain_as_published=True))


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
async def test_will_of_a_client_that_vanishes_is_published_as_it_asked(
    broker: Broker, topic: str, qos: int, *, retain: bool
) -> None:
    async with scripted(broker, "viewer") as watcher, scripted(broker, "sensor") as client:
        await watch(watcher, topic)
        await client.connect(mortal(topic, qos=qos, retain=retain))
        await watcher.expect_nothing()
        await client.drop()
        will = await watcher.take()
        assert (will.topic, will.payload, will.qos, will.retain) == (topic, b"gone", qos, retain)
        async with scripted(broker, "viewer") as later:
            await later.connect()
            await later.subscribe(topic)
            if retain:
                assert (await later.take()).retain
                await later.publish(topic, b"", retain=True)
            else:
                await later.expect_nothing()


async def test_will_keeps_its_properties_and_the_order_of_its_user_properties(
    broker: Broker, topic: str
) -> None:
    kept = Properties(
        payload_format_indicator=1,
        content_type="text/plain",
        response_topic="conf/answers",
        correlation_data=b"\0\1",
        user_properties=(("b", "1"), ("a", "2"), ("b", "1")),
    )
    will = Will(topic=topic, payload=b"gone", properties=kept)
    async with scripted(broker, "viewer") as watcher, scripted(broker, "sensor") as client:
        await watch(watcher, topic)
        await client.connect(Connect(client_id=unique("mortal"), will=will))
        await client.drop()
        assert plain(await watcher.take()).properties == kept


async def test_will_is_discarded_by_an_ordinary_disconnect(broker: Broker, topic: str) -> None:
    client_id = unique("mortal")
    async with scripted(broker, "viewer") as watcher:
        await watch(watcher, topic)
        async with scripted(broker, "sensor") as client:
            await client.connect(mortal(topic, client_id=client_id, expiry_s=60))
            await client.leave()
        await watcher.expect_nothing()
        async with scripted(
            broker, "sensor"
        ) as client:  # and it is no part of the session any more
            await client.connect(
                Connect(client_id=client_id, clean_start=False, properties=Properties())
            )
            await client.drop()
        await a_second_passes(broker)
        await watcher.expect_nothing()


@pytest.mark.parametrize(
    "reason",
    [ReasonCode.DISCONNECT_WITH_WILL_MESSAGE, ReasonCode.UNSPECIFIED_ERROR],
    ids=lambda reason: reason.name.lower(),
)
async def test_will_is_published_after_a_disconnect_with_another_reason(
    broker: Broker, topic: str, reason: ReasonCode
) -> None:
    async with scripted(broker, "viewer") as watcher, scripted(broker, "sensor") as client:
        await watch(watcher, topic)
        await client.connect(mortal(topic))
        await client.leave(reason)
        assert (await watcher.take()).payload == b"gone"


async def test_will_of_a_client_that_breaks_the_protocol_is_published(
    broker: Broker, topic: str
) -> None:
    async with scripted(broker, "viewer") as watcher, scripted(broker, "sensor") as client:
        await watch(watcher, topic)
        await client.connect(mortal(topic))
        await client.send_raw(b"\0\0")
        await client.expect_closed(ReasonCode.MALFORMED_PACKET, ReasonCode.PROTOCOL_ERROR)
        assert (await watcher.take()).payload == b"gone"


async def test_will_is_published_once(broker: Broker, topic: str) -> None:
    client_id = unique("mortal")
    async with scripted(broker, "viewer") as watcher:
        await watch(watcher, topic)
        async with scripted(broker, "sensor") as client:
            await client.connect(mortal(topic, client_id=client_id, expiry_s=60))
            await client.drop()
        await watcher.take()
        async with scripted(broker, "sensor") as client:  # the same session, without a will
            again = Connect(client_id=client_id, clean_start=False)
            assert (await client.connect(again)).session_present
            await client.drop()
        await a_second_passes(broker)
        await watcher.expect_nothing()


async def test_will_waits_for_its_delay(broker: Broker, topic: str) -> None:
    async with scripted(broker, "viewer") as watcher, scripted(broker, "sensor") as client:
        await watch(watcher, topic)
        await client.connect(mortal(topic, delay_s=2, expiry_s=60))
        await client.drop()
        await a_second_passes(broker)
        await watcher.expect_nothing()
        will = await watcher.take()
        assert will.payload == b"gone"
        assert will.properties == Properties(), "the delay is no property of a PUBLISH"


async def test_will_is_not_published_when_its_client_is_back_in_time(
    broker: Broker, topic: str
) -> None:
    client_id = unique("mortal")
    async with scripted(broker, "viewer") as watcher, scripted(broker, "sensor") as back:
        await watch(watcher, topic)
        async with scripted(broker, "sensor") as client:
            await client.connect(mortal(topic, client_id=client_id, delay_s=1, expiry_s=60))
            await client.drop()
        again = mortal(topic, client_id=client_id, delay_s=60, expiry_s=60, clean_start=False)
        assert (await back.connect(again)).session_present
        await a_second_passes(broker)
        await watcher.expect_nothing()


async def test_will_is_published_when_its_session_ends_before_the_delay(
    broker: Broker, topic: str
) -> None:
    async with scripted(broker, "viewer") as watcher:
        await watch(watcher, topic)
        for expiry_s in (None, 1):
            async with scripted(broker, "sensor") as client:
                await client.connect(mortal(topic, delay_s=300, expiry_s=expiry_s))
                await client.drop()
            assert (await watcher.take()).payload == b"gone"


async def test_will_is_published_when_a_clean_start_ends_its_session(
    broker: Broker, topic: str
) -> None:
    client_id = unique("mortal")
    async with scripted(broker, "viewer") as watcher, scripted(broker, "sensor") as back:
        await watch(watcher, topic)
        async with scripted(broker, "sensor") as client:
            await client.connect(mortal(topic, client_id=client_id, delay_s=300, expiry_s=600))
            await client.drop()
        await back.connect(Connect(client_id=client_id, clean_start=True))
        assert (await watcher.take()).payload == b"gone"


@pytest.mark.parametrize(
    ("delay_s", "clean_start", "published"),
    [(None, False, True), (300, False, False), (300, True, True)],
    ids=["no-delay", "delay-and-resumed", "delay-and-clean"],
)
async def test_take_over_ends_a_connection_like_any_other_end(
    broker: Broker, topic: str, delay_s: int | None, *, clean_start: bool, published: bool
) -> None:
    client_id = unique("mortal")
    async with (
        scripted(broker, "viewer") as watcher,
        scripted(broker, "sensor") as older,
        scripted(broker, "sensor") as newer,
    ):
        await watch(watcher, topic)
        await older.connect(mortal(topic, client_id=client_id, delay_s=delay_s, expiry_s=600))
        await newer.connect(
            Connect(
                client_id=client_id,
                clean_start=clean_start,
                properties=Properties(session_expiry_interval=600),
            )
        )
        if published:
            assert (await watcher.take()).payload == b"gone"
        else:
            await older.expect_closed(ReasonCode.SESSION_TAKEN_OVER)
            await watcher.expect_nothing()


async def test_will_where_its_client_may_not_write_reaches_nobody(broker: Broker) -> None:
    async with scripted(broker, "viewer") as watcher, scripted(broker, "bench") as client:
        topic = f"conf/{unique('forbidden')}"
        await watch(watcher, topic)
        await client.connect(mortal(topic))
        await client.drop()
        await a_second_passes(broker)
        await watcher.expect_nothing()
