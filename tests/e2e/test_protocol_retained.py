"""Retained messages as MQTT 5 asks for them, seen by paho over mutual TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from paho.mqtt.client import MQTTv311

from tests.e2e.clients import unique
from tests.e2e.paho_sessions import PahoSession, expiring, expiry_of, let_pass, users_of, with_users

if TYPE_CHECKING:
    from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_retained_message_is_replaced_then_cleared(system: Running, qos: int) -> None:
    topic = f"bench/{unique('retained')}"
    with PahoSession(system.ready, "bench") as writer:
        for payload in (b"first", b"second"):
            writer.tell(topic, payload, qos=qos, retain=True)
        writer.settle()
        with PahoSession(system.ready, "bench") as reader:
            reader.listen(topic, qos=2)
            found = reader.receive()
            assert (found.payload, found.retain, found.qos) == (b"second", True, qos)
        writer.tell(topic, b"", qos=qos, retain=True)
        writer.settle()
        with PahoSession(system.ready, "bench") as late:
            late.listen(topic)
            writer.tell(topic, b"only this")
            assert late.hear(1) == [b"only this"]


def test_retained_message_reaches_a_client_of_3_1_1(system: Running) -> None:
    topic = f"bench/{unique('old')}"
    with PahoSession(system.ready, "bench", version=MQTTv311) as old:
        old.tell(topic, b"kept", retain=True)
        old.subscribe(topic, qos=1)
        found = old.receive()
        assert (found.payload, found.retain) == (b"kept", True)


def test_retained_message_comes_live_without_its_flag(system: Running) -> None:
    topic = f"bench/{unique('live')}"
    with PahoSession(system.ready, "bench") as bench:
        bench.listen(topic)
        bench.tell(topic, b"new", retain=True)
        assert not bench.receive().retain


def test_retained_message_is_cleared_by_an_empty_one_that_is_delivered(system: Running) -> None:
    topic = f"bench/{unique('empty')}"
    with PahoSession(system.ready, "bench") as bench:
        bench.tell(topic, b"kept", retain=True)
        bench.listen(topic, retain_handling=2)
        bench.tell(topic, b"", retain=True)
        assert bench.hear(1) == [b""]


def test_message_without_the_flag_leaves_the_retained_one(system: Running) -> None:
    topic = f"bench/{unique('untouched')}"
    with PahoSession(system.ready, "bench") as bench:
        bench.tell(topic, b"kept", retain=True)
        bench.tell(topic, b"passing")
        bench.listen(topic)
        assert bench.hear(1) == [b"kept"]


@pytest.mark.parametrize(
    ("handling", "first", "again"),
    [(0, [b"kept"], [b"kept"]), (1, [b"kept"], []), (2, [], [])],
    ids=["always", "new-subscriptions", "never"],
)
def test_retain_handling_decides_what_a_subscription_brings(
    system: Running, handling: int, first: list[bytes], again: list[bytes]
) -> None:
    topic = f"bench/{unique('handling')}"
    with PahoSession(system.ready, "bench") as bench:
        bench.tell(topic, b"kept", retain=True)
        for expected in (first, again):
            bench.listen(topic, retain_handling=handling)
            bench.tell(topic, b"end")
            assert bench.hear(len(expected) + 1) == [*expected, b"end"]


@pytest.mark.parametrize("asked", [0, 1])
def test_retain_as_published_keeps_the_flag_only_when_asked(system: Running, asked: int) -> None:
    topic = f"bench/{unique('published')}"
    with PahoSession(system.ready, "bench") as bench:
        bench.listen(topic, retain_as_published=bool(asked))
        bench.tell(topic, b"flagged", retain=True)
        bench.tell(topic, b"plain")
        assert [bench.receive().retain for _ in range(2)] == [asked, False]


def test_wildcard_brings_every_retained_message_once(system: Running) -> None:
    topic = f"bench/{unique('many')}"
    names = {f"{topic}/{number}" for number in range(100)}
    with PahoSession(system.ready, "bench") as bench:
        for name in names:
            bench.tell(name, name.encode(), retain=True)
        bench.listen(f"{topic}/+")
        found = [bench.receive() for _ in names]
        bench.tell(f"{topic}/end", b"")
        assert bench.hear(1) == [b""]
    assert {(message.topic, message.payload) for message in found} == {
        (name, name.encode()) for name in names
    }


def test_retained_message_keeps_its_properties(system: Running) -> None:
    topic = f"bench/{unique('properties')}"
    pairs = [("b", "1"), ("a", "2"), ("b", "1")]
    with PahoSession(system.ready, "bench") as bench:
        bench.tell(topic, b"kept", retain=True, properties=with_users(pairs))
        bench.listen(topic)
        assert users_of(bench.receive()) == pairs


def test_retained_message_expires_and_counts_down(system: Running) -> None:
    topic = f"bench/{unique('expiring')}"
    with PahoSession(system.ready, "bench") as bench:
        bench.tell(f"{topic}/short", b"short", retain=True, properties=expiring(1))
        bench.tell(f"{topic}/long", b"long", retain=True, properties=expiring(100))
        let_pass(system.ready, 2)
        bench.listen(f"{topic}/+")
        found = bench.receive()
        bench.tell(f"{topic}/end", b"end")
        assert bench.hear(1) == [b"end"]
    assert found.payload == b"long"
    assert 90 < expiry_of(found) <= 99


def test_retained_message_is_not_for_shared_subscriptions(system: Running) -> None:
    topic = f"bench/{unique('shared')}"
    with PahoSession(system.ready, "bench") as bench:
        bench.tell(topic, b"kept", retain=True)
        bench.listen(f"$share/group/{topic}")
        bench.tell(topic, b"live")
        assert bench.hear(1) == [b"live"]


def test_retained_message_is_for_those_who_may_read_it(system: Running) -> None:
    name = unique("secret")
    with PahoSession(system.ready, "bench") as bench, PahoSession(system.ready, "sensor") as sensor:
        bench.tell(f"bench/{name}", b"secret", retain=True)
        sensor.tell(f"telemetry/{name}", b"public", retain=True)
        with PahoSession(system.ready, "viewer") as viewer:
            viewer.listen(f"+/{name}")
            assert viewer.hear(1) == [b"public"]
            sensor.tell(f"telemetry/{name}", b"end")
            assert viewer.hear(1) == [b"end"]


def test_retained_message_never_follows_a_newer_one(system: Running) -> None:
    topic = f"telemetry/{unique('newer')}"
    names = [f"{topic}/{number}" for number in range(60)]
    with (
        PahoSession(system.ready, "viewer") as viewer,
        PahoSession(system.ready, "sensor") as sensor,
    ):
        for name in names:
            sensor.tell(name, b"0", retain=True)
        viewer.client.subscribe(f"{topic}/+", 1)
        for turn in range(
            1, 11
        ):  # while the broker asks for the first time what the viewer may read
            for name in names:
                sensor.client.publish(name, b"%d" % turn, 1, retain=True)
        sensor.settle()
        viewer.settle()
        sensor.tell(f"{topic}/end", b"end")
        seen: dict[str, list[int]] = {name: [] for name in names}
        while (message := viewer.receive()).payload != b"end":
            seen[message.topic].append(int(message.payload))
    assert {name: turns for name, turns in seen.items() if turns != sorted(turns)} == {}
