"""paho-mqtt against a whole system, over mutual TLS, in both versions of the protocol."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from paho.mqtt.client import MQTTv5, MQTTv311

from acl.model import Resource
from tests.e2e.clients import (
    NOT_AUTHORIZED,
    assert_zscores,
    await_audit,
    call_zscore,
    correlation_of,
    eventually,
    paho,
    publish_properties,
    unique,
    user_properties_of,
    windows,
)

if TYPE_CHECKING:
    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

VERSIONS = [MQTTv5, MQTTv311]
NO_MATCHING_SUBSCRIBERS = 0x10


@pytest.mark.parametrize("listens", VERSIONS)
@pytest.mark.parametrize("speaks", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_paho_publishes_and_another_version_receives(
    system: Running, speaks: MQTTProtocolVersion, listens: MQTTProtocolVersion, qos: int
) -> None:
    topic = f"telemetry/{unique('paho')}"
    payloads = [b"%d" % number for number in range(100)]
    with (
        paho(system.ready, "viewer", version=listens) as viewer,
        paho(system.ready, "sensor", version=speaks) as sensor,
    ):
        assert viewer.subscribe(f"{topic}/+", qos=qos).code == qos
        for payload in payloads:
            sensor.publish(f"{topic}/cpu", payload, qos=qos)
        messages = [viewer.receive() for _ in payloads]
    assert [message.payload for message in messages] == payloads
    assert {(message.topic, message.qos) for message in messages} == {(f"{topic}/cpu", qos)}


def test_properties_pass_unchanged(system: Running) -> None:
    topic = f"telemetry/{unique('properties')}"
    sent = publish_properties()
    sent.ContentType = "application/x-float32"
    sent.PayloadFormatIndicator = 0
    sent.CorrelationData = bytes(range(256))
    sent.ResponseTopic = "results/sensor/elsewhere"
    sent.UserProperty = [("unit", "°C"), ("unit", "again"), ("", "")]
    with paho(system.ready, "viewer") as viewer, paho(system.ready, "sensor") as sensor:
        viewer.subscribe(topic, qos=1)
        for qos in (0, 1):
            sensor.publish(topic, b"\x00\xff", qos=qos, properties=sent)
        for _ in range(2):
            message = viewer.receive()
            assert message.payload == b"\x00\xff"
            assert message.properties is not None
            assert vars(message.properties) == vars(sent)


def test_refused_publish_is_answered_with_the_decision(system: Running) -> None:
    topic = f"telemetry/{unique('refused')}"
    with paho(system.ready, "viewer") as viewer:
        assert viewer.subscribe(topic).code == 0
        refused = viewer.publish(topic, b"1", qos=1)
        assert refused.code == NOT_AUTHORIZED
        denial = await_audit(
            system.folder / "audit" / "broker.jsonl",
            principal="viewer",
            resource=Resource.topic(topic).text,
        )
        assert str(denial["decision_id"]) in refused.text
        assert denial["kind"] == "authorization.denied"
        assert denial["outcome"] == "deny"
        assert viewer.messages.empty()


def test_refused_qos_0_publish_reaches_nobody_and_is_audited(system: Running) -> None:
    topic = f"telemetry/{unique('refused')}"
    with paho(system.ready, "viewer") as viewer, paho(system.ready, "sensor") as sensor:
        viewer.subscribe(topic)
        viewer.send(topic, b"forged")
        await_audit(
            system.folder / "audit" / "broker.jsonl",
            principal="viewer",
            resource=Resource.topic(topic).text,
        )
        sensor.publish(topic, b"real")
        assert viewer.receive().payload == b"real"


def test_refused_subscription_is_answered_with_the_decision(system: Running) -> None:
    with (
        paho(system.ready, "viewer") as viewer,
        paho(system.ready, "viewer", version=MQTTv311) as old,
    ):
        refused = viewer.subscribe(f"orders/{unique('denied')}/#")
        assert refused.code == NOT_AUTHORIZED
        assert "d-" in refused.text
        assert old.subscribe(f"orders/{unique('denied')}/#").code == 0x80
        assert viewer.subscribe(f"telemetry/{unique('allowed')}").code == 0


def test_wildcard_wider_than_the_grant_delivers_what_is_granted_only(system: Running) -> None:
    topic = unique("wide")
    with paho(system.ready, "viewer") as viewer, paho(system.ready, "bench") as bench:
        assert viewer.subscribe("#").code == 0
        with paho(system.ready, "sensor") as sensor:
            bench.publish(f"bench/{topic}", b"secret", qos=1)
            sensor.publish(f"telemetry/{topic}", b"public", qos=1)
        seen: list[str] = []
        while not seen or seen[-1] != f"telemetry/{topic}":
            seen.append(viewer.receive().topic)
        assert f"bench/{topic}" not in seen


def test_publish_without_a_subscriber_says_so(system: Running) -> None:
    with paho(system.ready, "sensor") as sensor:
        answer = sensor.publish(f"telemetry/{unique('nobody')}", b"1", qos=1)
        assert answer.code == NO_MATCHING_SUBSCRIBERS


def test_client_of_3_1_1_has_its_refused_publish_swallowed(system: Running) -> None:
    topic = f"telemetry/{unique('old')}"
    with (
        paho(system.ready, "viewer") as witness,
        paho(system.ready, "viewer", version=MQTTv311) as viewer,
        paho(system.ready, "sensor", version=MQTTv311) as sensor,
    ):
        witness.subscribe(topic)
        assert viewer.publish(topic, b"forged", qos=1).code == 0  # 3.1.1 knows no refusal
        assert sensor.publish(topic, b"real", qos=1).code == 0
        assert witness.receive().payload == b"real"


def test_same_client_id_takes_the_connection_over(system: Running) -> None:
    with paho(system.ready, "sensor") as first:
        second = paho(system.ready, "sensor")
        second.client._client_id = first.client._client_id
        with second:
            assert first.ended.get(timeout=15) == 0x8E
            assert second.publish(f"telemetry/{unique('over')}", b"1", qos=1).code < 0x80


def test_same_client_id_of_another_principal_disturbs_nobody(system: Running) -> None:
    topic = f"telemetry/{unique('two')}"
    with paho(system.ready, "sensor") as sensor:
        viewer = paho(system.ready, "viewer")
        viewer.client._client_id = sensor.client._client_id
        with viewer:
            viewer.subscribe(topic)
            sensor.publish(topic, b"1", qos=1)
            assert viewer.receive().payload == b"1"
        assert sensor.ended.empty()


def test_will_of_a_broken_client_is_published(system: Running) -> None:
    topic = f"telemetry/{unique('will')}"
    with paho(system.ready, "viewer") as viewer:
        viewer.subscribe(topic, qos=1)
        sensor = paho(system.ready, "sensor")
        sensor.client.will_set(topic, b"gone", qos=1)
        with sensor:
            socket = sensor.client.socket()
            assert socket is not None
            socket.close()
            assert viewer.receive().payload == b"gone"


def test_large_message_arrives_whole(system: Running) -> None:
    topic = f"bench/{unique('large')}"
    payload = hashlib.shake_256(b"large").digest(200_000)
    with paho(system.ready, "bench") as listener, paho(system.ready, "bench") as bench:
        listener.subscribe(topic, qos=1)
        for qos in (0, 1):
            bench.publish(topic, payload, qos=qos)
            assert listener.receive().payload == payload


def test_unsubscribed_topic_is_silent(system: Running) -> None:
    topic = f"bench/{unique('unsubscribed')}"
    with paho(system.ready, "bench") as bench:
        bench.subscribe(f"{topic}/a")
        bench.subscribe(f"{topic}/b")
        bench.client.unsubscribe(f"{topic}/a")
        bench.publish(f"{topic}/a", b"a", qos=1)
        bench.publish(f"{topic}/b", b"b", qos=1)
        assert bench.receive().topic == f"{topic}/b"


@pytest.mark.parametrize("count", [1, 200])
def test_pipelined_kernel_calls_are_answered_with_what_numpy_computes(
    system: Running, count: int
) -> None:
    samples = windows(count, seed=count)
    with paho(system.ready, "sensor") as sensor:
        answers = call_zscore(sensor, samples)
    for answer, row in zip(answers, samples, strict=True):
        assert_zscores(answer.payload, row)
        assert user_properties_of(answer)["status"] == "ok"


def test_viewer_reads_the_results_too(system: Running) -> None:
    samples = windows(20, seed=7)
    with paho(system.ready, "viewer") as viewer, paho(system.ready, "sensor") as sensor:
        viewer.subscribe("results/sensor/#")
        answers = call_zscore(sensor, samples)
        expected = {(correlation_of(answer), bytes(answer.payload)) for answer in answers}
        seen: set[tuple[bytes, bytes]] = set()

        def all_seen() -> bool:
            while not viewer.messages.empty():
                message = viewer.receive()
                seen.add((correlation_of(message), bytes(message.payload)))
            return expected <= seen

        eventually(all_seen)
