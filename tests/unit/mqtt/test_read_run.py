from __future__ import annotations

import pytest

from mqtt.encode import encode
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.known_topics import KnownTopics
from mqtt.packets import EMPTY, Properties, Publish, Version
from mqtt.read_run import FIRST_BYTES, read_run
from mqtt.runs import Run

HEAD = 2
"""Of packets shorter than 130 bytes."""


def wire(*packets: Publish, version: Version = Version.V5) -> bytes:
    return b"".join(encode(each, version) for each in packets)


def read(data: bytes, start: int = 0, version: Version = Version.V5) -> Run | None:
    end = start + HEAD + data[start + 1]
    return read_run(data, start, start + HEAD, end, version, KnownTopics())


def message(packet_id: int = 1, properties: Properties = EMPTY, payload: bytes = b"x") -> Publish:
    return Publish(topic="a/b", payload=payload, qos=1, packet_id=packet_id, properties=properties)


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_run_is_found_where_it_begins_and_holds_nothing_else(qos: int, version: Version) -> None:
    packets = [
        Publish(topic="a/b", payload=b"%d" % each, qos=qos, packet_id=each if qos else None)
        for each in (1, 2, 3)
    ]
    other = Publish(topic="a/c", payload=b"4")
    before = wire(other, version=version)
    run = read(before + wire(*packets, other, version=version), len(before), version)
    assert run is not None
    assert run.data == wire(*packets, version=version)
    assert [run.packet(each) for each in range(run.count)] == packets
    assert run.data[0] in FIRST_BYTES


@pytest.mark.parametrize(
    "properties",
    [
        Properties(correlation_data=b""),
        Properties(correlation_data=b"12", message_expiry_interval=9),
        Properties(message_expiry_interval=9, content_type="c"),
    ],
)
def test_packet_cut_off_by_the_read_is_no_part_of_the_run(properties: Properties) -> None:
    data = wire(message(1, properties), message(2, properties), message(3, properties))
    for cut in range(1, len(data) // 3):
        run = read(data[:-cut])
        assert run is not None
        assert run.packet_ids() == [1, 2]


def test_packets_that_differ_in_what_a_run_shares_are_no_run() -> None:
    first = message(1, Properties(content_type="c", message_expiry_interval=9))
    for other in (
        message(2, Properties(content_type="c", message_expiry_interval=8)),
        message(2, Properties(content_type="cccccc")),
        message(2, Properties(content_type="c"), b"xxxxxx"),
        message(2, Properties(message_expiry_interval=9, user_properties=(("", ""),))),
    ):
        run = read(wire(first, other))
        assert run is not None
        assert run.count == 1


@pytest.mark.parametrize("qos", [0, 1])
def test_bare_packet_and_one_with_properties_of_the_same_length_are_no_run(qos: int) -> None:
    packet_id = 1 if qos else None
    bare = Publish(topic="a", payload=b"123456", qos=qos, packet_id=packet_id)
    other = Publish(
        topic="a",
        payload=b"1234",
        qos=qos,
        packet_id=packet_id,
        properties=Properties(payload_format_indicator=1),
    )
    for first, second in ((bare, other), (other, bare)):
        assert len(wire(first)) == len(wire(second))
        run = read(wire(first, second))
        assert run is not None
        assert (run.count, run.packet()) == (1, first)


@pytest.mark.parametrize(
    "illegal",
    [
        "32 07 0003 612f62 0000",
        "32 06 0003 612f62 00",
        "32 07 0003 612f62 0001",
        "32 09 0003 612f62 0001 02 01",
        "32 0a 0003 612f62 0001 8000 78",
        "32 0b 0003 612f62 0001 03 230001",
        "30 05 0009 612f62",
        "30 04 0000 00 78",
    ],
)
def test_packet_that_needs_more_than_a_look_is_left_to_the_plain_way(illegal: str) -> None:
    assert read(bytes.fromhex(illegal)) is None


def test_illegal_topic_is_refused_at_once() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        read(bytes.fromhex("30 06 0003 612f2b 00"))
    assert caught.value.reason is ReasonCode.TOPIC_NAME_INVALID
