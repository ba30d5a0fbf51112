from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from broker.calls import answers, call_of, calls_of_run, failures, verify_response_topic
from mqtt.encode import encode
from mqtt.errors import RemoteProtocolError
from mqtt.packets import Connect, Properties, Publish, Role, Version
from mqtt.reader import PacketReader
from mqtt.runs import Run


def runs_of(packets: list[bytes], version: Version = Version.V5) -> list[Run]:
    reader = PacketReader(role=Role.SERVER, max_packet_bytes=1 << 20)
    reader.feed(encode(Connect(client_id="c", version=version), version) + b"".join(packets))
    events = []
    while (event := reader.next_event()) is not None:
        events.append(event)
    return [event for event in events if isinstance(event, Run)]


def request(
    payload: bytes, correlation: bytes | None, *, response: str | None = "results/a"
) -> bytes:
    return encode(
        Publish(
            topic="kernel/zscore",
            payload=payload,
            properties=Properties(response_topic=response, correlation_data=correlation),
        ),
        Version.V5,
    )


def test_run_of_equal_requests_is_one_call_with_its_columns() -> None:
    packets = [request(bytes([i]) * 8, i.to_bytes(4)) for i in range(100)]
    (run,) = runs_of(packets)
    (call,) = calls_of_run(run)
    assert call.count == 100
    assert call.response_topic == "results/a"
    assert call.payloads.shape == (100, 8)
    assert [bytes(row) for row in call.correlations] == [i.to_bytes(4) for i in range(100)]
    assert bytes(call.payloads[7]) == b"\x07" * 8


def test_run_whose_response_topics_differ_is_split() -> None:
    packets = [request(b"12345678", b"x", response=f"results/{i}") for i in range(3)]
    (run,) = runs_of(packets)
    calls = list(calls_of_run(run))
    assert [call.response_topic for call in calls] == ["results/0", "results/1", "results/2"]


def test_run_from_a_311_client_has_no_response_topic() -> None:
    packet = encode(Publish(topic="kernel/zscore", payload=b"1234"), Version.V311)
    (run,) = runs_of([packet, packet], Version.V311)
    (call,) = calls_of_run(run)
    assert call.response_topic is None
    assert call.correlations.shape == (2, 0)


@pytest.mark.parametrize(
    "topic", [None, "kernel/zscore", "results/+", "", "$SYS/broker/uptime", "$delayed/1/t"]
)
def test_response_topic_that_cannot_be_answered_is_refused(topic: str | None) -> None:
    with pytest.raises(RemoteProtocolError):
        verify_response_topic(topic)


def test_failures_say_so_in_user_properties_and_carry_no_payload() -> None:
    run = failures("results/a", np.frombuffer(b"abcd", np.uint8).reshape(2, 2), "unknown kernel")
    second = run.packet(1)
    assert second.payload == b""
    assert second.properties.correlation_data == b"cd"
    assert second.properties.user_properties == (("status", "error"), ("error", "unknown kernel"))


@given(
    count=st.integers(1, 40),
    correlation=st.integers(0, 20),
    size=st.integers(0, 300),
    topic=st.sampled_from(["r", "results/sensor/1", "é/ü", "t" * 200]),
    data=st.data(),
)
def test_answers_equal_packets_encoded_one_by_one(
    count: int, correlation: int, size: int, topic: str, data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    correlations = rng.integers(0, 256, (count, correlation), dtype=np.uint8)
    results = rng.integers(0, 256, (count, size), dtype=np.uint8)
    run = answers(topic, correlations, results)
    plain = [
        encode(
            Publish(
                topic=topic,
                payload=bytes(results[i]),
                properties=Properties(
                    correlation_data=bytes(correlations[i]) if correlation else None,
                    user_properties=(("status", "ok"),),
                ),
            ),
            Version.V5,
        )
        for i in range(count)
    ]
    assert run.data == b"".join(plain)
    assert run.count == count
    assert run.packet(count - 1).payload == bytes(results[-1])


@given(
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=12),
    payload=st.integers(0, 32),
)
def test_calls_of_a_run_equal_calls_of_its_packets(sizes: list[int], payload: int) -> None:
    packets = [request(bytes([i]) * payload, bytes([i]) * size) for i, size in enumerate(sizes)]
    fast = [call for run in runs_of(packets) for call in calls_of_run(run)]
    slow = [call_of(run.packet(i)) for run in runs_of(packets) for i in range(run.count)]
    rows = [
        (bytes(call.correlations[i]), bytes(call.payloads[i]))
        for call in fast
        for i in range(call.count)
    ]
    assert rows == [(bytes(call.correlations[0]), bytes(call.payloads[0])) for call in slow]


def test_answers_find_the_topic_also_where_the_header_looks_like_it() -> None:
    # Length C2 91, remaining length C2 91 03, and a topic of the same three bytes over and over:
    # whoever searches the packet for the topic finds it two bytes too early.
    topic = (b"\x03\xc2\x91" * 0xC291)[:0xC291].decode()
    run = answers(topic, np.zeros((1, 0), np.uint8), np.zeros((1, 1569), np.uint8))
    assert run.data[1:4] == b"\xc2\x91\x03"
    assert run.head == 4
    assert run.packet(0).topic == topic
