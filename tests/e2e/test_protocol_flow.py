"""Bounds between client and broker: receive maximum, packet size, expiry, aliases, order; seen by paho over mutual TLS."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from paho.mqtt.client import MQTTv5, MQTTv311

from tests.e2e.clients import ANSWER_S, publish_properties, unique
from tests.e2e.paho_sessions import PahoSession, expiring, expiry_of, let_pass, users_of, with_users

if TYPE_CHECKING:
    from paho.mqtt.enums import MQTTProtocolVersion
    from paho.mqtt.properties import Properties

    from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

TOPIC_ALIAS_INVALID = 0x94
VERSIONS = [MQTTv5, MQTTv311]
MEBIBYTE = 1 << 20


def aliased(alias: int) -> Properties:
    properties = publish_properties()
    properties.TopicAlias = alias
    return properties


@pytest.mark.parametrize("listens", VERSIONS)
@pytest.mark.parametrize("speaks", VERSIONS)
def test_exactly_once_reaches_every_version_in_order(
    system: Running, speaks: MQTTProtocolVersion, listens: MQTTProtocolVersion
) -> None:
    topic = f"bench/{unique('exactly')}"
    payloads = [b"%d" % number for number in range(100)]
    with (
        PahoSession(system.ready, "bench", version=listens) as listener,
        PahoSession(system.ready, "bench", version=speaks) as speaker,
    ):
        assert listener.subscribe(topic, qos=2).code == 2
        speaker.tell_all(topic, payloads, qos=2)
        found = [listener.receive() for _ in payloads]
        speaker.tell(topic, b"end", qos=2)
        assert listener.hear(1) == [b"end"]
    assert [message.payload for message in found] == payloads
    assert {message.qos for message in found} == {2}


@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("published", [0, 1, 2])
def test_message_comes_at_the_lower_qos(system: Running, published: int, granted: int) -> None:
    topic = f"bench/{unique('lower')}"
    with PahoSession(system.ready, "bench") as bench:
        assert bench.listen(topic, qos=granted) == granted
        bench.tell(topic, b"1", qos=published)
        assert bench.receive().qos == min(published, granted)


@pytest.mark.parametrize("qos", [1, 2])
def test_receive_maximum_of_the_client_is_kept(system: Running, qos: int) -> None:
    topic = f"bench/{unique('window')}"
    payloads = [b"%d" % number for number in range(10)]
    with (
        PahoSession(system.ready, "bench") as writer,
        PahoSession(system.ready, "bench", receive_maximum=3, manual_acks=True) as client,
    ):
        client.listen(topic, qos=qos)
        writer.tell_all(topic, payloads, qos=qos)
        window = [client.receive() for _ in range(3)]
        client.settle()  # other packets are answered meanwhile
        assert client.messages.empty()
        for number in range(3, 10):
            client.client.ack(window[number - 3].mid, qos)
            window.append(client.receive())
            client.settle()
            assert client.messages.empty()
    assert [message.payload for message in window] == payloads


def test_packet_larger_than_the_client_takes_is_left_out(system: Running) -> None:
    topic = f"bench/{unique('small')}"
    with (
        PahoSession(system.ready, "bench") as writer,
        PahoSession(system.ready, "bench", max_packet_bytes=1_000) as client,
    ):
        client.listen(topic)
        for payload in (bytes(500), bytes(2_000), b"end"):
            writer.tell(topic, payload)
        assert client.hear(2) == [bytes(500), b"end"]
        assert client.ended.empty()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_message_close_to_the_limit_arrives_whole(system: Running, qos: int) -> None:
    topic = f"bench/{unique('large')}"
    payload = hashlib.shake_256(b"large").digest(MEBIBYTE - 200)
    with PahoSession(system.ready, "bench") as bench:
        bench.listen(topic, qos=qos)
        bench.tell(topic, payload, qos=qos)
        assert bench.receive().payload == payload


def test_expired_message_does_not_come_and_the_others_count_down(system: Running) -> None:
    topic = f"bench/{unique('expired')}"
    with PahoSession(system.ready, "bench", expiry_s=60) as client:
        client.listen(topic)
    with PahoSession(system.ready, "bench") as writer:
        writer.tell(topic, b"short", properties=expiring(1))
        writer.tell(topic, b"long", properties=expiring(100))
        writer.tell(topic, b"eternal")
        let_pass(system.ready, 2)
    with PahoSession(
        system.ready, "bench", client_id=client.client_id, clean_start=False, expiry_s=60
    ) as returned:
        long, eternal = returned.receive(), returned.receive()
    assert (long.payload, eternal.payload) == (b"long", b"eternal")
    assert 90 < expiry_of(long) <= 99
    assert expiry_of(eternal) == -1


def test_fresh_message_keeps_its_whole_interval(system: Running) -> None:
    topic = f"bench/{unique('fresh')}"
    with PahoSession(system.ready, "bench") as bench:
        bench.listen(topic)
        bench.tell(topic, b"1", properties=expiring(100))
        assert expiry_of(bench.receive()) in {99, 100}


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_alias_stands_for_its_topic_until_it_is_given_another(system: Running, qos: int) -> None:
    topic = f"bench/{unique('alias')}"
    with PahoSession(system.ready, "bench") as writer, PahoSession(system.ready, "bench") as reader:
        assert writer.told("TopicAliasMaximum", absent=0) >= 1
        reader.listen(f"{topic}/+", qos=qos)
        for name, payload in ((f"{topic}/a", b"1"), ("", b"2"), (f"{topic}/b", b"3"), ("", b"4")):
            writer.tell(name, payload, qos=qos, properties=aliased(1))
        found = [reader.receive() for _ in range(4)]
    assert [(message.topic[-1], message.payload) for message in found] == [
        ("a", b"1"),
        ("a", b"2"),
        ("b", b"3"),
        ("b", b"4"),
    ]
    assert not any(hasattr(message.properties, "TopicAlias") for message in found)


def test_alias_above_the_maximum_ends_the_client_only(system: Running) -> None:
    topic = f"bench/{unique('above')}"
    with PahoSession(system.ready, "bench") as writer, PahoSession(system.ready, "bench") as reader:
        reader.listen(topic)
        above = writer.told("TopicAliasMaximum", absent=0) + 1
        writer.send(topic, b"never", properties=aliased(above))
        assert writer.ended.get(timeout=ANSWER_S) == TOPIC_ALIAS_INVALID
        reader.tell(topic, b"end")
        assert reader.hear(1) == [b"end"]


def test_alias_of_an_earlier_connection_is_forgotten(system: Running) -> None:
    with PahoSession(system.ready, "bench", expiry_s=60) as first:
        first.tell(f"bench/{unique('forgotten')}", b"1", properties=aliased(1))
    with PahoSession(system.ready, "bench", client_id=first.client_id, clean_start=False) as second:
        second.send("", b"where to", properties=aliased(1))
        assert second.ended.get(timeout=ANSWER_S) >= 0x80


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_user_properties_keep_order_and_duplicates(system: Running, qos: int) -> None:
    topic = f"bench/{unique('users')}"
    pairs = [("z", "1"), ("a", "2"), ("z", "1"), ("", ""), ("a", "°"), ("z", "0")]
    with PahoSession(system.ready, "bench") as bench:
        bench.listen(topic, qos=qos)
        bench.tell(topic, b"1", qos=qos, properties=with_users(pairs))
        assert users_of(bench.receive()) == pairs


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_order_holds_on_every_one_of_many_topics(system: Running, qos: int) -> None:
    topic = f"bench/{unique('topics')}"
    topics = [f"{topic}/{number % 17}/{number}" for number in range(300)]
    with PahoSession(system.ready, "bench") as reader, PahoSession(system.ready, "bench") as writer:
        reader.listen(f"{topic}/#", qos=qos)
        for turn in (b"1", b"2", b"3"):
            mids = [writer.client.publish(name, turn, qos).mid for name in topics]
        with writer._news:
            assert writer._news.wait_for(lambda: set(mids) <= writer._published.keys(), ANSWER_S)
        found: dict[str, list[bytes]] = {name: [] for name in topics}
        for _ in range(3 * len(topics)):
            message = reader.receive()
            found[message.topic].append(bytes(message.payload))
    assert all(payloads == [b"1", b"2", b"3"] for payloads in found.values())
