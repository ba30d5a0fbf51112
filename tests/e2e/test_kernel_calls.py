"""Kernel calls as clients of others make them: every wrong one is answered, every right one computed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from paho.mqtt.client import MQTTv311

from tests.e2e.clients import (
    NOT_AUTHORIZED,
    assert_zscores,
    await_audit,
    call_zscore,
    correlation_of,
    paho,
    request_properties,
    ruled,
    unique,
    user_properties_of,
    windows,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.e2e.clients import Paho
    from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

IMPLEMENTATION_SPECIFIC_ERROR, TOPIC_NAME_INVALID, PAYLOAD_FORMAT_INVALID = 0x83, 0x90, 0x99


@pytest.fixture
def sensor(system: Running) -> Generator[Paho]:
    with paho(system.ready, "sensor") as client:
        yield client


@pytest.fixture
def answers(sensor: Paho) -> str:
    """A response topic that the sensor listens to."""
    topic = f"results/sensor/{unique('answers')}"
    assert sensor.subscribe(topic).code == 0
    return topic


@pytest.mark.parametrize("size", [0, 3, 255, 257, 512, 100_000])
def test_payload_of_the_wrong_size_is_answered_with_an_error(
    sensor: Paho, answers: str, size: int
) -> None:
    properties = request_properties(answers, b"wrong")
    sensor.send("kernel/zscore", bytes(size), properties=properties)
    answer = sensor.receive()
    assert answer.payload == b""
    assert correlation_of(answer) == b"wrong"
    told = user_properties_of(answer)
    assert told["status"] == "error"
    assert "256" in told["error"]


def test_payload_of_the_wrong_size_is_told_in_the_acknowledgement(
    sensor: Paho, answers: str
) -> None:
    properties = request_properties(answers, b"wrong")
    told = sensor.publish("kernel/zscore", b"three", qos=1, properties=properties)
    assert told.code == PAYLOAD_FORMAT_INVALID
    assert "256" in told.text
    assert user_properties_of(sensor.receive())["status"] == "error"


def test_wrong_call_between_right_ones_spoils_nothing(sensor: Paho, answers: str) -> None:
    samples = windows(20, seed=11)
    for number, row in enumerate(samples):
        payload = b"wrong" if number == 10 else row.tobytes()
        properties = request_properties(answers, b"%d" % number)
        sensor.send("kernel/zscore", payload, properties=properties)
    received = {correlation_of(answer): answer for answer in (sensor.receive() for _ in samples)}
    for number, row in enumerate(samples):
        answer = received[b"%d" % number]
        if number == 10:
            assert user_properties_of(answer)["status"] == "error"
        else:
            assert_zscores(answer.payload, row)


def test_kernel_that_is_not_there_is_answered_with_an_error(system: Running) -> None:
    name = unique("nowhere")
    with (
        ruled(system.ready, "sensor", "execute", f"kernel.{name}"),
        paho(system.ready, "sensor") as sensor,
    ):
        topic = f"results/sensor/{unique('answers')}"
        sensor.subscribe(topic)
        properties = request_properties(topic, b"who")
        told = sensor.publish(f"kernel/{name}", b"1", qos=1, properties=properties)
        assert told.code == TOPIC_NAME_INVALID
        assert name in told.text
        answer = sensor.receive()
        assert user_properties_of(answer)["status"] == "error"
        assert name in user_properties_of(answer)["error"]
        assert correlation_of(answer) == b"who"


def test_kernel_that_no_rule_allows_is_refused_and_audited(
    system: Running, sensor: Paho, answers: str
) -> None:
    name = unique("forbidden")
    properties = request_properties(answers, b"")
    told = sensor.publish(f"kernel/{name}", b"1", qos=1, properties=properties)
    assert told.code == NOT_AUTHORIZED
    denial = await_audit(
        system.folder / "audit" / "broker.jsonl", principal="sensor", resource=f"kernel.{name}"
    )
    assert str(denial["decision_id"]) in told.text


def test_viewer_may_not_call_the_kernel(system: Running) -> None:
    with paho(system.ready, "viewer") as viewer:
        properties = request_properties("results/sensor/forged", b"")
        payload = windows(1)[0].tobytes()
        told = viewer.publish("kernel/zscore", payload, qos=1, properties=properties)
        assert told.code == NOT_AUTHORIZED


def test_answer_to_where_the_caller_may_not_write_is_refused(sensor: Paho) -> None:
    properties = request_properties(f"results/viewer/{unique('forged')}", b"")
    payload = windows(1)[0].tobytes()
    told = sensor.publish("kernel/zscore", payload, qos=1, properties=properties)
    assert told.code == NOT_AUTHORIZED


@pytest.mark.parametrize("topic", ["kernel/zscore", ""])
def test_call_without_a_usable_response_topic_is_told(sensor: Paho, topic: str) -> None:
    properties = request_properties(topic, b"") if topic else None
    payload = windows(1)[0].tobytes()
    told = sensor.publish("kernel/zscore", payload, qos=1, properties=properties)
    assert told.code == IMPLEMENTATION_SPECIFIC_ERROR
    assert "response topic" in told.text


def test_client_of_3_1_1_can_call_nothing_and_stays_connected(system: Running) -> None:
    topic = f"telemetry/{unique('old')}"
    with (
        paho(system.ready, "sensor", version=MQTTv311) as sensor,
        paho(system.ready, "viewer") as viewer,
    ):
        viewer.subscribe(topic)
        sensor.publish("kernel/zscore", windows(1)[0].tobytes(), qos=1)
        sensor.publish(topic, b"still here", qos=1)
        assert viewer.receive().payload == b"still here"


def test_calls_at_qos_1_are_acknowledged_and_computed(sensor: Paho, answers: str) -> None:
    for number, row in enumerate(windows(10, seed=5)):
        properties = request_properties(answers, b"%d" % number)
        told = sensor.publish("kernel/zscore", row.tobytes(), qos=1, properties=properties)
        assert told.code == 0
        answer = sensor.receive()
        assert correlation_of(answer) == b"%d" % number
        assert_zscores(answer.payload, row)


def test_answers_carry_correlation_data_of_any_length(sensor: Paho, answers: str) -> None:
    row = windows(1)[0]
    for correlation in (b"", b"\0", bytes(range(256)) * 8):
        properties = request_properties(answers, correlation)
        sensor.send("kernel/zscore", row.tobytes(), properties=properties)
        answer = sensor.receive()
        assert correlation_of(answer) == correlation
        assert_zscores(answer.payload, row)


def test_callers_at_the_same_time_get_their_own_answers(system: Running) -> None:
    def call(seed: int) -> int:
        samples = windows(100, seed=seed)
        address = system.ready.broker.wss if seed % 2 else None
        with paho(system.ready, "sensor", address=address) as client:
            for answer, row in zip(call_zscore(client, samples), samples, strict=True):
                assert_zscores(answer.payload, row)
        return len(samples)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(call, range(4))) == 400
