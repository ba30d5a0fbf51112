"""MQTT 5.0 on the wire: SUBSCRIBE, UNSUBSCRIBE, filters, shared subscriptions (sections H and I of docs/conformance.md)."""

from __future__ import annotations

import itertools
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
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
)
from tests.e2e.clients import unique
from tests.e2e.scripted_client import ScriptedClient, id_of, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.e2e.scripted_client import Broker

pytest_plugins = ["tests.e2e.conformance"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

BAD, PROTO = ReasonCode.MALFORMED_PACKET, ReasonCode.PROTOCOL_ERROR
FILTER, DENIED = ReasonCode.TOPIC_FILTER_INVALID, ReasonCode.NOT_AUTHORIZED
NONE_EXISTED = ReasonCode.NO_SUBSCRIPTION_EXISTED


def text(value: bytes) -> bytes:
    """A string as MQTT writes it, whatever its bytes."""
    return len(value).to_bytes(2) + value


def request(first: int, payload: bytes) -> bytes:
    """SUBSCRIBE or UNSUBSCRIBE with identifier 1 and no properties, in which anything may be wrong."""
    return bytes((first, 3 + len(payload))) + b"\0\1\0" + payload


@asynccontextmanager
async def connected(broker: Broker, principal: str = "sensor") -> AsyncGenerator[ScriptedClient]:
    """A connected client."""
    async with scripted(broker, principal) as client:
        await client.connect()
        yield client


# -- SUBSCRIBE


@pytest.mark.parametrize(
    ("sent", "reasons"),
    [
        pytest.param(request(0x82, text(b"conf/\xff") + b"\0"), (BAD,), id="filter-not-utf-8"),
        pytest.param(request(0xA2, text(b"conf/\xff")), (BAD,), id="unsubscribe-filter-not-utf-8"),
        pytest.param(request(0x82, b""), (PROTO, BAD), id="no-filter"),
        pytest.param(request(0xA2, b""), (PROTO, BAD), id="unsubscribe-no-filter"),
        pytest.param(request(0x82, text(b"conf/a") + b"\x40"), (BAD, PROTO), id="reserved-options"),
        pytest.param(request(0x82, text(b"conf/a") + b"\x03"), (BAD, PROTO), id="qos-3"),
        pytest.param(request(0x82, text(b"conf/a") + b"\x30"), (PROTO, BAD), id="retain-handling-3"),
        pytest.param(request(0x82, text(b"$share/g/conf/a") + b"\x04"), (PROTO,), id="no-local-on-shared"),
        pytest.param(b"\x82\x0e\0\1\2\x0b\0" + text(b"conf/ab") + b"\0", (PROTO, BAD), id="subscription-identifier-0"),
        pytest.param(request(0x82, text(b"conf/a#") + b"\0"), (FILTER, BAD), id="hash-not-alone"),
        pytest.param(request(0x82, text(b"conf/#/a") + b"\0"), (FILTER, BAD), id="hash-not-last"),
        pytest.param(request(0x82, text(b"conf/a+/b") + b"\0"), (FILTER, BAD), id="plus-not-alone"),
        pytest.param(request(0x82, text(b"") + b"\0"), (FILTER, BAD), id="empty-filter"),
        pytest.param(request(0x82, text(b"conf/\0") + b"\0"), (FILTER, BAD), id="zero-in-filter"),
        pytest.param(request(0x82, text(b"$share/g") + b"\0"), (FILTER, PROTO, BAD), id="share-without-filter"),
        pytest.param(request(0x82, text(b"$share//conf/a") + b"\0"), (FILTER, PROTO, BAD), id="share-name-empty"),
        pytest.param(request(0x82, text(b"$share/a+/conf/a") + b"\0"), (FILTER, PROTO, BAD), id="share-name-with-plus"),
        pytest.param(request(0x82, text(b"$share/#/conf/a") + b"\0"), (FILTER, PROTO, BAD), id="share-name-with-hash"),
    ],
)  # fmt: skip
async def test_request_that_is_not_well_formed_ends_its_client(
    broker: Broker, sent: bytes, reasons: tuple[ReasonCode, ...]
) -> None:
    async with connected(broker) as client:
        await client.send_raw(sent)
        await client.expect_closed(*reasons)


async def test_suback_has_the_id_of_its_request_and_a_code_for_each_filter_in_order(
    broker: Broker, topic: str
) -> None:
    filters = (
        Subscription(filter=f"{topic}/a", qos=2),
        Subscription(filter="orders/denied"),
        Subscription(filter=f"{topic}/b"),
        Subscription(filter=f"{topic}/c", qos=1),
    )
    codes = (
        ReasonCode.GRANTED_QOS_2,
        DENIED,
        ReasonCode.GRANTED_QOS_0,
        ReasonCode.GRANTED_QOS_1,
    )
    async with connected(broker) as client:
        for packet_id in (4711, 65_535, 1):
            await client.send(Subscribe(packet_id=packet_id, filters=filters))
            answer = await client.receive()
            assert isinstance(answer, Suback)
            assert (answer.packet_id, answer.reasons) == (packet_id, codes)


async def test_many_filters_are_handled_as_if_they_came_one_by_one(
    broker: Broker, topic: str
) -> None:
    async with connected(broker) as client:
        granted = await client.subscribe(
            Subscription(filter=topic, qos=2), Subscription(filter=topic, qos=0)
        )
        assert granted == (ReasonCode.GRANTED_QOS_2, ReasonCode.GRANTED_QOS_0)
        await client.publish(topic, qos=2)
        assert (await client.take()).qos == 0  # the second replaced the first
        await client.expect_nothing()


async def test_no_local_keeps_a_clients_own_messages_from_it(broker: Broker, topic: str) -> None:
    async with connected(broker) as client, connected(broker) as other:
        await client.subscribe(Subscription(filter=topic, qos=1, no_local=True))
        await other.subscribe(Subscription(filter=topic, qos=1))
        await client.publish(topic, b"own", qos=1)
        await other.publish(topic, b"foreign", qos=1)
        assert (await client.take()).payload == b"foreign"
        assert [(await other.take()).payload for _ in range(2)] == [b"own", b"foreign"]
        await client.expect_nothing()


async def test_same_filter_replaces_the_subscription_and_loses_no_message(
    broker: Broker, topic: str
) -> None:
    async with connected(broker) as client, connected(broker, "viewer") as publisher:
        await publisher.publish(topic, b"kept", qos=1, retain=True)
        await client.subscribe(topic, qos=0, properties=Properties(subscription_identifiers=(1,)))
        assert (await client.take()).retain
        await publisher.send(Publish(topic=topic, payload=b"before", qos=1, packet_id=901))
        await client.subscribe(topic, qos=1, properties=Properties(subscription_identifiers=(2,)))
        assert (await publisher.receive_of(Puback)).packet_id == 901
        await publisher.publish(topic, b"after", qos=1)
        got = [await client.take() for _ in range(3)]
        assert sorted((message.payload, message.retain) for message in got) == [
            (b"after", False),
            (b"before", False),
            (b"kept", True),  # again, because retain handling 0 asks for it
        ]
        after = next(message for message in got if message.payload == b"after")
        assert (after.qos, after.properties.subscription_identifiers) == (1, (2,))
        await client.expect_nothing()
        await publisher.publish(topic, b"", retain=True)


# -- UNSUBSCRIBE


async def test_unsuback_has_the_id_of_its_request_and_a_code_for_each_filter_in_order(
    broker: Broker, topic: str
) -> None:
    async with connected(broker) as client:
        await client.subscribe(f"{topic}/a", f"{topic}/b")
        filters = (f"{topic}/a", f"{topic}/never", f"{topic}/b", f"{topic}/a")
        await client.send(Unsubscribe(packet_id=4711, filters=filters))
        assert await client.receive() == Unsuback(
            packet_id=4711,
            reasons=(ReasonCode.SUCCESS, NONE_EXISTED, ReasonCode.SUCCESS, NONE_EXISTED),
        )


async def test_unsubscribe_compares_filters_character_by_character(
    broker: Broker, topic: str
) -> None:
    async with connected(broker) as client:
        await client.subscribe(f"{topic}/+")
        others = (f"{topic}/a", f"{topic}/#", f"{topic}/+/", f"{topic.upper()}/+")
        assert await client.unsubscribe(*others) == (NONE_EXISTED,) * 4
        await client.publish(f"{topic}/a", b"still")
        assert (await client.take()).payload == b"still"


async def test_unsubscribed_filter_gets_nothing_more(broker: Broker, topic: str) -> None:
    async with connected(broker) as client:
        await client.subscribe(topic, f"{topic}/#")
        assert await client.unsubscribe(f"{topic}/#") == (ReasonCode.SUCCESS,)
        await client.publish(f"{topic}/a", b"nobody")
        await client.publish(topic, b"the other subscription")
        assert (await client.take()).payload == b"the other subscription"
        await client.expect_nothing()


@pytest.mark.parametrize("qos", [1, 2])
async def test_delivery_under_way_is_finished_after_unsubscribe(
    broker: Broker, topic: str, qos: int
) -> None:
    kept = Connect(
        client_id=unique("leaving"),
        clean_start=False,
        properties=Properties(session_expiry_interval=60),
    )
    async with scripted(broker, "sensor") as client, connected(broker, "viewer") as publisher:
        await client.connect(kept)
        await client.subscribe(topic, qos=qos)
        await publisher.publish(topic, b"begun", qos=qos)
        first = await client.receive_of(Publish)
        assert await client.unsubscribe(topic) == (ReasonCode.SUCCESS,)
        await client.drop()
    async with scripted(broker, "sensor") as client:
        await client.connect(kept)
        again = await client.take()
        assert (again.payload, again.dup, id_of(again)) == (b"begun", True, id_of(first))


# -- filters


@pytest.mark.parametrize(
    ("wanted", "matching", "others"),
    [
        ("#", ("", "/a", "/a/b", "//"), ()),
        ("+", ("/a", "/", "/a b"), ("", "/a/b", "/a/")),
        ("+/+", ("/a/b", "//"), ("/a",)),
        ("a", ("/a",), ("/A", "//a", "/a/", "", "/ä")),
        ("\u00e4", ("/\u00e4",), ("/a\u0308",)),
        ("\ufeffa", ("/\ufeffa",), ("/a",)),
    ],
    ids=["hash", "plus", "two-plus", "case-and-slashes", "not-normalised", "byte-order-mark"],
)
async def test_filter_matches_what_the_standard_says(
    broker: Broker, topic: str, wanted: str, matching: tuple[str, ...], others: tuple[str, ...]
) -> None:
    async with connected(broker) as client, connected(broker, "viewer") as publisher:
        await client.subscribe(f"{topic}/{wanted}")
        for end in (*others, *matching):
            await publisher.publish(f"{topic}{end}")
        got = [(await client.take()).topic for _ in matching]
        assert got == [f"{topic}{end}" for end in matching]
        await client.expect_nothing()


async def test_topic_that_begins_with_a_slash_is_another_one(broker: Broker, topic: str) -> None:
    async with connected(broker) as client, connected(broker, "viewer") as publisher:
        await client.subscribe(topic, f"+/{topic}")
        await publisher.publish(f"/{topic}", b"with")
        await publisher.publish(topic, b"without")
        got = [(await client.take()).payload for _ in range(2)]
        assert got == [b"with", b"without"]
        await client.expect_nothing()


async def test_wildcard_at_the_beginning_never_matches_a_dollar_topic(
    broker: Broker, topic: str
) -> None:
    async with connected(broker) as wide, connected(broker) as exact:
        for wanted in ("#", f"+/{topic.partition('/')[2]}"):
            assert not (await wide.subscribe(wanted))[0].failed
        await exact.subscribe(f"${topic}")
        async with connected(broker, "viewer") as publisher:
            await publisher.publish(f"${topic}", b"hidden")
            await publisher.publish(topic, b"seen")
        assert (await exact.take()).payload == b"hidden"
        # Other tests publish too, but nothing that begins with `$` may come.
        while (message := await wide.take()).payload != b"seen":
            assert not message.topic.startswith("$")


async def test_long_topic_is_carried_whole(broker: Broker, topic: str) -> None:
    longest = f"{topic}/{'x' * (65_535 - len(topic) - 1)}"
    async with connected(broker) as client:
        assert not (await client.subscribe(f"{topic}/+"))[0].failed
        assert not (await client.publish(longest[:60_000], qos=1)).failed
        assert (await client.take()).topic == longest[:60_000]


# -- shared subscriptions


async def test_shared_message_goes_to_one_member_of_each_group(broker: Broker, topic: str) -> None:
    async with (
        connected(broker) as one,
        connected(broker, "viewer") as two,
        connected(broker) as other_group,
        connected(broker) as alone,
        connected(broker, "viewer") as publisher,
    ):
        for member in (one, two):
            await member.subscribe(f"$share/group/{topic}/#", qos=1)
        await other_group.subscribe(f"$share/other/{topic}/#", qos=1)
        await alone.subscribe(f"{topic}/#", qos=1)
        sent = [b"%d" % number for number in range(20)]
        for payload in sent:
            await publisher.publish(f"{topic}/a", payload, qos=1)
        for watcher in (other_group, alone):
            assert [(await watcher.take()).payload for _ in sent] == sent
        shares = [await taken(member) for member in (one, two)]
        assert sorted(itertools.chain(*shares), key=int) == sent
        assert all(shares), "each of the members got some"


async def taken(client: ScriptedClient) -> list[bytes]:
    """Everything that is there for a client, acknowledged."""
    marker = f"conf/{unique('marker')}"
    await client.subscribe(marker, qos=1)
    await client.publish(marker, qos=1)
    got: list[bytes] = []
    while (message := await client.take()).topic != marker:
        got.append(message.payload)
    return got


async def test_member_gets_messages_at_the_qos_it_was_granted(broker: Broker, topic: str) -> None:
    shared = f"$share/group/{topic}"
    async with connected(broker) as member, connected(broker, "viewer") as publisher:
        for granted in (0, 1, 2):
            assert await member.subscribe(shared, qos=granted) == (ReasonCode(granted),)
            for published in (0, 1, 2):
                await publisher.publish(topic, qos=published)
                assert (await member.take()).qos == min(granted, published)


async def test_shared_subscription_ends_by_its_whole_name_only(broker: Broker, topic: str) -> None:
    async with connected(broker) as member:
        await member.subscribe(f"$share/group/{topic}", qos=1)
        wrong = (topic, f"$share/other/{topic}")
        assert await member.unsubscribe(*wrong) == (NONE_EXISTED,) * 2
        await member.publish(topic, b"still", qos=1)
        assert (await member.take()).payload == b"still"
        assert await member.unsubscribe(f"$share/group/{topic}") == (ReasonCode.SUCCESS,)
        await member.publish(topic, b"nobody", qos=1)
        await member.expect_nothing()


@asynccontextmanager
async def member_with_a_message(
    broker: Broker, topic: str, connect: Connect, *, qos: int
) -> AsyncGenerator[tuple[ScriptedClient, Publish]]:
    """The only member of a group, and the message it has got and not acknowledged."""
    async with scripted(broker, "sensor") as member:
        await member.connect(connect)
        await member.subscribe(f"$share/group/{topic}", qos=qos)
        async with connected(broker, "viewer") as publisher:
            await publisher.publish(topic, b"begun", qos=qos)
        yield member, await member.receive_of(Publish)


async def test_qos_2_delivery_in_progress_is_finished_with_its_member(
    broker: Broker, topic: str
) -> None:
    kept = Connect(
        client_id=unique("member"),
        clean_start=False,
        properties=Properties(session_expiry_interval=60),
    )
    async with connected(broker) as other:
        async with member_with_a_message(broker, topic, kept, qos=2) as (member, first):
            await other.subscribe(f"$share/group/{topic}", qos=2)
            await member.send(Pubrec(packet_id=id_of(first)))
            assert await member.receive() == Pubrel(packet_id=id_of(first))
            await member.drop()
        await other.expect_nothing()
        async with scripted(broker, "sensor") as member:
            await member.connect(kept)
            assert await member.receive() == Pubrel(packet_id=id_of(first))
            await member.send(Pubcomp(packet_id=id_of(first)))
            await member.expect_nothing()
        await other.expect_nothing()


async def test_qos_2_delivery_in_progress_goes_to_nobody_when_its_session_ends(
    broker: Broker, topic: str
) -> None:
    async with connected(broker) as other:
        brief = Connect(client_id=unique("member"))
        async with member_with_a_message(broker, topic, brief, qos=2) as (member, first):
            await other.subscribe(f"$share/group/{topic}", qos=2)
            await member.send(Pubrec(packet_id=id_of(first)))
            assert await member.receive() == Pubrel(packet_id=id_of(first))
            await member.leave()
        await other.expect_nothing()


async def test_qos_1_delivery_of_a_session_that_ended_goes_to_another_member(
    broker: Broker, topic: str
) -> None:
    async with connected(broker) as other:
        brief = Connect(client_id=unique("member"))
        async with member_with_a_message(broker, topic, brief, qos=1) as (member, _):
            await other.subscribe(f"$share/group/{topic}", qos=1)
            await member.leave()
        assert (await other.take()).payload == b"begun"


@pytest.mark.parametrize("qos", [1, 2])
async def test_message_that_a_member_refuses_goes_to_no_other(
    broker: Broker, topic: str, qos: int
) -> None:
    async with connected(broker) as other:
        brief = Connect(client_id=unique("member"))
        async with member_with_a_message(broker, topic, brief, qos=qos) as (member, first):
            await other.subscribe(f"$share/group/{topic}", qos=qos)
            answer = Pubrec if qos == 2 else Puback
            await member.send(answer(packet_id=id_of(first), reason=ReasonCode.UNSPECIFIED_ERROR))
            await member.ping()
            await other.expect_nothing()
            await member.leave()
        await other.expect_nothing()
