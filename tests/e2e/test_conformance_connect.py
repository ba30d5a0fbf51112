"""MQTT 5.0 on the wire: CONNECT and its answer, sessions and how long they last (sections B and C of docs/conformance.md)."""

from __future__ import annotations

import string
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from mqtt.encode import encode
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
    Version,
    Will,
)
from tests.e2e.clients import unique
from tests.e2e.scripted_client import a_second_passes, id_of, scripted

if TYPE_CHECKING:
    from tests.e2e.scripted_client import Broker

pytest_plugins = ["tests.e2e.conformance"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

BAD, PROTO = ReasonCode.MALFORMED_PACKET, ReasonCode.PROTOCOL_ERROR

KEPT = Properties(session_expiry_interval=300)


def kept(client_id: str, *, clean_start: bool = False) -> Connect:
    """A client whose session outlives its connection."""
    return Connect(client_id=client_id, clean_start=clean_start, properties=KEPT)


def connect_bytes(
    *, head: bytes = b"\0\4MQTT\5", flags: int = 2, payload: bytes = b"\0\1a"
) -> bytes:
    """A CONNECT without properties, in which anything may be wrong."""
    body = head + bytes((flags,)) + b"\0\x3c\0" + payload
    return bytes((0x10, len(body))) + body


# -- the first packet


@pytest.mark.parametrize(
    "first",
    [
        Pingreq(),
        Publish(topic="conf/early"),
        Subscribe(packet_id=1, filters=(Subscription(filter="conf/#"),)),
    ],
    ids=lambda packet: type(packet).__name__,
)
async def test_connection_that_begins_with_another_packet_is_closed(
    broker: Broker, first: Pingreq | Publish | Subscribe
) -> None:
    async with scripted(broker, "sensor") as client:
        await client.send(first)
        await client.expect_refused()


async def test_second_connect_is_a_protocol_error(broker: Broker) -> None:
    async with scripted(broker, "sensor") as client:
        await client.connect()
        await client.send_raw(encode(Connect(client_id=unique("second")), Version.V5))
        await client.expect_closed(PROTO)


@pytest.mark.parametrize(
    ("sent", "reasons"),
    [
        pytest.param(connect_bytes(head=b"\0\4MQTX\5"), (BAD, ReasonCode.UNSUPPORTED_PROTOCOL_VERSION), id="protocol-name"),
        pytest.param(connect_bytes(head=b"\0\4MQTT\6"), (ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,), id="version"),
        pytest.param(connect_bytes(flags=3), (BAD,), id="reserved-flag"),
        pytest.param(connect_bytes(payload=b""), (BAD,), id="no-client-id"),
        pytest.param(connect_bytes(payload=b"\0\2\xff\xfe"), (BAD, ReasonCode.CLIENT_IDENTIFIER_NOT_VALID), id="client-id-not-utf-8"),
        pytest.param(connect_bytes(payload=b"\0\1\0"), (BAD, ReasonCode.CLIENT_IDENTIFIER_NOT_VALID), id="client-id-zero"),
        pytest.param(connect_bytes(flags=0x06), (BAD,), id="will-flagged-and-missing"),
        pytest.param(connect_bytes(flags=0x82), (BAD,), id="user-name-flagged-and-missing"),
        pytest.param(connect_bytes(flags=0x42), (BAD,), id="password-flagged-and-missing"),
        pytest.param(connect_bytes(payload=b"\0\1a\0\4user"), (BAD,), id="user-name-without-flag"),
        pytest.param(connect_bytes(flags=0x82, payload=b"\0\1a\0\1u\0\1p"), (BAD,), id="password-without-flag"),
        pytest.param(connect_bytes(payload=b"\0\1a\0\0\6conf/w\0\1x"), (BAD,), id="will-without-flag"),
        pytest.param(connect_bytes(flags=0x0A), (BAD,), id="will-qos-without-will"),
        pytest.param(connect_bytes(flags=0x22), (BAD,), id="will-retain-without-will"),
        pytest.param(connect_bytes(flags=0x1E, payload=b"\0\1a\0\0\6conf/w\0\1x"), (BAD, ReasonCode.QOS_NOT_SUPPORTED), id="will-qos-3"),
        pytest.param(connect_bytes(flags=0x06, payload=b"\0\1a\0\0\1\xff\0\1x"), (BAD, ReasonCode.TOPIC_NAME_INVALID), id="will-topic-not-utf-8"),
        pytest.param(connect_bytes(flags=0x82, payload=b"\0\1a\0\1\xff"), (BAD, ReasonCode.BAD_USER_NAME_OR_PASSWORD), id="user-name-not-utf-8"),
    ],
)  # fmt: skip
async def test_connect_that_is_not_well_formed_is_refused(
    broker: Broker, sent: bytes, reasons: tuple[ReasonCode, ...]
) -> None:
    async with scripted(broker, "sensor") as client:
        await client.send_raw(sent)
        await client.expect_refused(*reasons)


async def test_refused_client_has_nothing_else_done(broker: Broker, topic: str) -> None:
    async with scripted(broker, "viewer") as watcher, scripted(broker, "sensor") as client:
        await watcher.connect()
        await watcher.subscribe(topic)
        smuggled = encode(Publish(topic=topic, payload=b"smuggled"), Version.V5)
        await client.send_raw(connect_bytes(flags=3) + smuggled)
        await client.expect_refused()
        await watcher.expect_nothing()


async def test_connect_with_every_field_is_accepted_and_read_in_order(
    broker: Broker, topic: str
) -> None:
    full = Connect(
        client_id=unique("full"),
        keep_alive=60,
        username="somebody",
        password=b"\0\xff",
        will=Will(topic=topic, payload=b"gone", qos=1),
    )
    async with scripted(broker, "viewer") as watcher, scripted(broker, "sensor") as client:
        await watcher.connect()
        await watcher.subscribe(topic)
        await client.connect(full)
        await client.drop()
        assert (await watcher.take()).payload == b"gone"


# -- CONNACK


async def test_connack_is_the_first_packet_and_comes_once(broker: Broker, topic: str) -> None:
    client_id = unique("first")
    async with scripted(broker, "sensor") as client:
        await client.connect(kept(client_id))
        await client.subscribe(topic, qos=1)
    async with scripted(broker, "viewer") as publisher:
        await publisher.connect()
        await publisher.publish(topic, b"queued", qos=1)
    async with scripted(broker, "sensor") as client:
        await client.send(kept(client_id), Pingreq())  # CONNACK goes before everything that is due
        assert isinstance(await client.receive(), Connack)
        assert (await client.take()).payload == b"queued"
        await client.ping()
        assert client.heard[:1] == b"\x20"
        assert client.heard[2] == 1, "flag bits 7 to 1 are 0"


async def test_connack_tells_that_every_qos_is_served(broker: Broker, topic: str) -> None:
    async with scripted(broker, "sensor") as client:
        told = (await client.connect()).properties
        assert told.maximum_qos is None
        assert told.retain_available is not False
        assert told.wildcard_subscription_available is not False
        assert told.subscription_identifier_available is not False
        assert told.shared_subscription_available is not False
        assert await client.subscribe(topic, qos=2) == (ReasonCode.GRANTED_QOS_2,)


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_will_is_accepted_at_every_qos_and_retained(
    broker: Broker, topic: str, qos: int
) -> None:
    will = Will(topic=topic, qos=qos, retain=True)
    async with scripted(broker, "sensor") as client:
        await client.connect(Connect(client_id=unique("will"), will=will))
        await client.leave()


async def test_response_information_is_not_given_unasked(broker: Broker) -> None:
    for asked in (Properties(), Properties(request_response_information=False)):
        async with scripted(broker, "sensor") as client:
            told = await client.connect(Connect(client_id=unique("quiet"), properties=asked))
            assert told.properties.response_information is None


async def test_reasons_are_explained_unless_the_client_wants_none(broker: Broker) -> None:
    for wanted in (True, False):
        asked = Properties(request_problem_information=wanted)
        async with scripted(broker, "sensor") as client:
            await client.connect(Connect(client_id=unique("terse"), properties=asked))
            await client.send(
                Publish(topic="orders/denied", qos=1, packet_id=1),
                Publish(topic="orders/denied", qos=2, packet_id=2),
                Subscribe(packet_id=3, filters=(Subscription(filter="orders/denied"),)),
            )
            for _ in range(3):
                answer = await client.receive()
                assert isinstance(answer, Puback | Pubrec | Suback)
                properties = answer.properties
                assert (properties.reason_string is not None) is wanted, answer
                assert not properties.user_properties


# -- client identifiers


@pytest.mark.parametrize(
    "client_id",
    ["x", string.digits + string.ascii_lowercase[:13], string.ascii_lowercase[-23:],
     string.ascii_uppercase[:23], string.ascii_uppercase[-10:] + string.ascii_lowercase[:13]],
)  # fmt: skip
async def test_client_id_of_letters_and_digits_is_accepted(broker: Broker, client_id: str) -> None:
    assert 1 <= len(client_id) <= 23
    async with scripted(broker, "sensor") as client:
        told = await client.connect(Connect(client_id=client_id))
        assert told.properties.assigned_client_identifier is None


async def test_client_without_an_id_is_told_a_new_one_that_is_its_own(broker: Broker) -> None:
    async with AsyncExitStack() as stack:
        assigned = []
        for _ in range(3):
            client = await stack.enter_async_context(scripted(broker, "sensor"))
            told = await client.connect(Connect(client_id="", properties=KEPT))
            assigned.append(told.properties.assigned_client_identifier)
        assert None not in assigned
        assert len(set(assigned)) == 3
    async with scripted(broker, "sensor") as client:
        assert (await client.connect(kept(assigned[0] or ""))).session_present


async def test_session_is_found_by_its_client_id(broker: Broker) -> None:
    one, other = unique("one"), unique("other")
    async with scripted(broker, "sensor") as client:
        await client.connect(kept(one))
        await client.leave()
    async with scripted(broker, "sensor") as client:
        assert not (await client.connect(kept(other))).session_present
    async with scripted(broker, "sensor") as client:
        assert (await client.connect(kept(one))).session_present


async def test_same_client_id_takes_over_and_the_older_is_told(broker: Broker, topic: str) -> None:
    client_id = unique("twice")
    async with scripted(broker, "sensor") as older, scripted(broker, "sensor") as newer:
        await older.connect(kept(client_id))
        await older.subscribe(topic, qos=1)
        assert (await newer.connect(kept(client_id))).session_present
        goodbye = await older.expect_closed(ReasonCode.SESSION_TAKEN_OVER)
        assert goodbye is not None
        assert goodbye.properties.session_expiry_interval is None
        await newer.publish(topic, b"to the newer", qos=1)
        assert (await newer.take()).payload == b"to the newer"


# -- keep alive


async def test_silent_client_is_ended_after_one_and_a_half_keep_alives(broker: Broker) -> None:
    async with scripted(broker, "sensor") as silent, scripted(broker, "sensor") as alive:
        told = await silent.connect(Connect(client_id=unique("silent"), keep_alive=1))
        assert told.properties.server_keep_alive is None, "the client's own value counts"
        await alive.connect(Connect(client_id=unique("alive"), keep_alive=2))
        for _ in range(3):  # longer than it may be silent
            await a_second_passes(broker)
            await alive.ping()
        await silent.expect_closed(ReasonCode.KEEP_ALIVE_TIMEOUT)
        await alive.ping()


# -- sessions


async def test_clean_start_discards_what_was_there(broker: Broker, topic: str) -> None:
    client_id = unique("clean")
    async with scripted(broker, "sensor") as client:
        assert not (await client.connect(kept(client_id))).session_present
        await client.subscribe(topic, qos=1)
    async with scripted(broker, "sensor") as client:
        again = kept(client_id, clean_start=True)
        assert not (await client.connect(again)).session_present
        await client.publish(topic, qos=1)
        await client.expect_nothing()


async def test_session_is_resumed_with_everything_it_had(broker: Broker, topic: str) -> None:
    client_id = unique("resumed")
    options = Subscription(filter=f"{topic}/+", qos=2, no_local=True, retain_as_published=True)
    async with scripted(broker, "sensor") as client:
        await client.connect(kept(client_id))
        await client.subscribe(options, properties=Properties(subscription_identifiers=(77,)))
        await client.send(Publish(topic=f"{topic}/mine", qos=2, packet_id=500))
        begun = await client.receive_of(Pubrec)
        assert begun.packet_id == 500
        assert not begun.reason.failed
        await client.drop()
    async with scripted(broker, "viewer") as publisher:
        await publisher.connect()
        await publisher.publish(f"{topic}/waiting", b"1", qos=1)
        await publisher.publish(f"{topic}/waiting", b"2", qos=2, retain=True)
    async with scripted(broker, "sensor") as client:
        assert (await client.connect(kept(client_id))).session_present
        first, second = await client.take(), await client.take()
        assert (first.payload, first.qos, first.retain) == (b"1", 1, False)
        assert (second.payload, second.qos, second.retain) == (b"2", 2, True)
        assert first.properties.subscription_identifiers == (77,)
        await client.publish(f"{topic}/own", qos=1)  # no-local is still in force
        await client.send(Pubrel(packet_id=500))  # and so is the QoS 2 message it had begun
        assert await client.receive() == Pubcomp(packet_id=500)
        await client.expect_nothing()
    async with scripted(broker, "viewer") as publisher:
        await publisher.connect()
        await publisher.publish(f"{topic}/waiting", b"", retain=True)


async def test_session_that_does_not_outlive_its_connection_is_gone(broker: Broker) -> None:
    client_id = unique("short")
    async with scripted(broker, "sensor") as client:
        await client.connect(Connect(client_id=client_id))
        await client.leave()
    async with scripted(broker, "sensor") as client:
        assert not (await client.connect(kept(client_id))).session_present


async def test_session_lasts_as_long_as_agreed_and_while_it_is_connected(
    broker: Broker, topic: str
) -> None:
    brief = Properties(session_expiry_interval=1)
    away, here = unique("away"), unique("here")
    async with scripted(broker, "sensor") as connected:
        await connected.connect(Connect(client_id=here, properties=brief))
        await connected.subscribe(topic, qos=1)
        async with scripted(broker, "sensor") as client:
            await client.connect(Connect(client_id=away, properties=brief))
            await client.leave()
        await a_second_passes(broker)
        async with scripted(broker, "sensor") as client:
            assert not (await client.connect(kept(away))).session_present
            await client.publish(topic, b"still here", qos=1)
        assert (await connected.take()).payload == b"still here"


async def test_disconnect_may_shorten_the_life_of_its_session(broker: Broker) -> None:
    client_id = unique("shortened")
    async with scripted(broker, "sensor") as client:
        await client.connect(kept(client_id))
        await client.leave(properties=Properties(session_expiry_interval=0))
    async with scripted(broker, "sensor") as client:
        assert not (await client.connect(kept(client_id))).session_present


async def test_disconnect_may_not_give_a_session_a_life_it_never_had(broker: Broker) -> None:
    client_id = unique("raised")
    async with scripted(broker, "sensor") as client:
        await client.connect(Connect(client_id=client_id))
        await client.send_raw(bytes.fromhex("e007 00 05 11 0000012c"))
        await client.expect_closed(PROTO)
    async with scripted(broker, "sensor") as client:
        assert not (await client.connect(kept(client_id))).session_present


async def test_message_under_way_at_the_end_of_a_connection_comes_again(
    broker: Broker, topic: str
) -> None:
    client_id = unique("under-way")
    async with scripted(broker, "sensor") as client, scripted(broker, "viewer") as publisher:
        await client.connect(kept(client_id))
        await client.subscribe(topic, qos=1)
        await publisher.connect()
        await publisher.publish(topic, b"x", qos=1)
        first = await client.receive_of(Publish)
    async with scripted(broker, "sensor") as client:
        await client.connect(kept(client_id))
        again = await client.take()
        assert (again.payload, again.dup, id_of(again)) == (b"x", True, id_of(first))
