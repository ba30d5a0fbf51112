"""MQTT 5.0 on the wire: retained messages (section G of docs/conformance.md)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from mqtt.packets import Properties, Publish, Subscription
from tests.e2e.scripted_client import ScriptedClient, a_second_passes, plain, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.e2e.scripted_client import Broker

pytest_plugins = ["tests.e2e.conformance"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]


@asynccontextmanager
async def keeper_of(broker: Broker, *topics: str) -> AsyncGenerator[ScriptedClient]:
    """A connected client that retains messages; what `topics` hold is removed at the end."""
    async with scripted(broker, "sensor") as client:
        await client.connect()
        try:
            yield client
        finally:
            for topic in topics:
                await client.publish(topic, b"", retain=True)


async def retained_at(broker: Broker, wanted: str, *, qos: int = 2) -> list[Publish]:
    """What a new subscriber gets at once, in order of the topics."""
    async with scripted(broker, "viewer") as late:
        await late.connect()
        await late.subscribe(wanted, qos=qos)
        marker = f"{wanted.removesuffix('/#').removesuffix('/+')}/marker"
        await late.subscribe(marker)
        await late.publish(marker)  # what is retained comes before what was published later
        got: list[Publish] = []
        while (message := await late.take()).topic != marker:
            got.append(message)
        return sorted(got, key=lambda each: each.topic)


def payloads_of(messages: list[Publish]) -> list[bytes]:
    """Their payloads."""
    return [message.payload for message in messages]


# -- the store


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_retained_message_replaces_the_one_before(
    broker: Broker, topic: str, qos: int
) -> None:
    async with keeper_of(broker, topic) as keeper:
        for payload in (b"old", b"new"):
            await keeper.publish(topic, payload, qos=qos, retain=True)
        (message,) = await retained_at(broker, topic)
        assert (message.topic, message.payload) == (topic, b"new")
        assert (message.retain, message.qos, message.dup) == (True, qos, False)


async def test_empty_retained_message_removes_and_is_delivered_like_any_other(
    broker: Broker, topic: str
) -> None:
    async with keeper_of(broker) as keeper, scripted(broker, "viewer") as watcher:
        await keeper.publish(topic, b"kept", qos=1, retain=True)
        await watcher.connect()
        await watcher.subscribe(topic, qos=1)
        assert (await watcher.take()).payload == b"kept"
        await keeper.publish(topic, b"", qos=1, retain=True)
        message = await watcher.take()
        assert (message.payload, message.retain) == (b"", False)
        assert await retained_at(broker, topic) == []


async def test_empty_message_is_never_retained(broker: Broker, topic: str) -> None:
    async with keeper_of(broker) as keeper:
        await keeper.publish(topic, b"", qos=1, retain=True)
        assert await retained_at(broker, topic) == []


@pytest.mark.parametrize("payload", [b"not retained", b""])
async def test_message_without_the_flag_leaves_the_store_alone(
    broker: Broker, topic: str, payload: bytes
) -> None:
    async with keeper_of(broker, topic) as keeper:
        await keeper.publish(topic, b"kept", qos=1, retain=True)
        await keeper.publish(topic, payload, qos=1)
        assert payloads_of(await retained_at(broker, topic)) == [b"kept"]


async def test_wildcard_gets_every_retained_message_it_matches(broker: Broker, topic: str) -> None:
    names = [f"{topic}/{name}" for name in ("a", "a/b", "c")]
    async with keeper_of(broker, topic, *names) as keeper:
        for each in (topic, *names):
            await keeper.publish(each, each.encode(), qos=1, retain=True)
        every = await retained_at(broker, f"{topic}/#")
        assert [message.topic for message in every] == [topic, *names]
        level = await retained_at(broker, f"{topic}/+")
        assert [message.topic for message in level] == [names[0], names[2]]


async def test_retained_message_comes_at_the_lower_qos_and_names_its_subscription(
    broker: Broker, topic: str
) -> None:
    async with keeper_of(broker, topic) as keeper, scripted(broker, "viewer") as late:
        await keeper.publish(topic, b"kept", qos=2, retain=True)
        await late.connect()
        await late.subscribe(topic, qos=1, properties=Properties(subscription_identifiers=(9,)))
        message = await late.take()
        assert message.qos == 1
        assert message.properties.subscription_identifiers == (9,)


async def test_retained_message_keeps_its_properties(broker: Broker, topic: str) -> None:
    kept = Properties(
        payload_format_indicator=1,
        content_type="text/plain",
        response_topic="conf/answers",
        correlation_data=b"\0\1",
        user_properties=(("b", "1"), ("a", "2"), ("b", "1")),
    )
    async with keeper_of(broker, topic) as keeper:
        await keeper.publish(topic, b"kept", retain=True, properties=kept)
        (message,) = await retained_at(broker, topic)
        assert plain(message) == Publish(topic=topic, payload=b"kept", retain=True, properties=kept)


async def test_retained_message_expires_and_until_then_says_what_is_left(
    broker: Broker, topic: str
) -> None:
    brief, long = f"{topic}/brief", f"{topic}/long"
    async with keeper_of(broker, brief, long) as keeper:
        for each, interval in ((brief, 1), (long, 60)):
            limit = Properties(message_expiry_interval=interval)
            await keeper.publish(each, b"kept", qos=1, retain=True, properties=limit)
        await a_second_passes(broker)
        (message,) = await retained_at(broker, f"{topic}/#")
        assert message.topic == long
        assert 40 <= (message.properties.message_expiry_interval or 0) <= 59


# -- when it is sent


@pytest.mark.parametrize(
    ("handling", "first", "again"), [(0, True, True), (1, True, False), (2, False, False)]
)
async def test_retain_handling_says_when_retained_messages_come(
    broker: Broker, topic: str, handling: int, *, first: bool, again: bool
) -> None:
    asked = Subscription(filter=topic, qos=1, retain_handling=handling)
    async with keeper_of(broker, topic) as keeper, scripted(broker, "viewer") as late:
        await keeper.publish(topic, b"kept", qos=1, retain=True)
        await late.connect()
        for comes in (first, again):
            await late.subscribe(asked)
            if comes:
                assert (await late.take()).payload == b"kept"
            await late.expect_nothing()
        await late.unsubscribe(topic)
        await late.subscribe(asked)  # which makes it a new subscription
        if first:
            assert (await late.take()).payload == b"kept"
        await late.expect_nothing()


async def test_flag_of_a_message_to_an_existing_subscription_is_kept_on_request_only(
    broker: Broker, topic: str
) -> None:
    async with (
        keeper_of(broker, topic) as keeper,
        scripted(broker, "viewer") as cleared,
        scripted(broker, "viewer") as kept,
    ):
        for watcher, as_published in ((cleared, False), (kept, True)):
            await watcher.connect()
            await watcher.subscribe(
                Subscription(filter=topic, qos=2, retain_as_published=as_published)
            )
        for qos in (0, 1, 2):
            for retain in (True, False):
                await keeper.publish(topic, b"x", qos=qos, retain=retain)
                assert (await cleared.take()).retain is False
                assert (await kept.take()).retain is retain


async def test_shared_subscription_gets_no_retained_message(broker: Broker, topic: str) -> None:
    async with keeper_of(broker, topic) as keeper, scripted(broker, "viewer") as member:
        await keeper.publish(topic, b"kept", qos=1, retain=True)
        await member.connect()
        assert not (await member.subscribe(f"$share/group/{topic}", qos=1))[0].failed
        await member.expect_nothing()


async def test_retained_message_of_a_topic_one_may_not_read_stays_hidden(broker: Broker) -> None:
    async with scripted(broker, "bench") as stranger:
        await stranger.connect()
        assert all(reason.failed for reason in await stranger.subscribe("conf/#", "conf/x"))
        await stranger.expect_nothing()
