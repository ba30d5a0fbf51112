from __future__ import annotations

import pytest

from mqtt.encode import encode
from mqtt.errors import LocalProtocolError, RemoteProtocolError
from mqtt.packets import Pingreq, Properties, Publish, Version
from mqtt.runs import Run

ASKED = Properties(response_topic="r", correlation_data=b"1")
FIRST = Publish(topic="a/b", payload=b"one", properties=ASKED)
SECOND = Publish(topic="a/b", payload=b"two", properties=ASKED)


def run_of(*packets: Publish, version: Version = Version.V5) -> Run:
    first = Run.parse(encode(packets[0], version), version)
    return first.repeated(b"".join(encode(each, version) for each in packets), len(packets))


def test_run_shows_its_packets() -> None:
    run = run_of(FIRST, SECOND)
    assert (run.count, run.stride, run.topic) == (2, len(run.data) // 2, b"a/b")
    assert [run.packet(each) for each in range(2)] == [FIRST, SECOND]
    assert run.payloads() == [b"one", b"two"]
    assert run.payload_bytes == 3
    assert run.properties(1) == ASKED
    assert run.raw(1) == encode(SECOND, Version.V5)
    assert not run.bare
    assert not run.retain
    assert repr(run) == f"<Run of 2 x {run.stride} bytes on b'a/b', V5>"


@pytest.mark.parametrize("version", Version)
def test_run_without_properties_is_bare(version: Version) -> None:
    packet = Publish(topic="a", payload=b"")
    run = run_of(packet, packet, version=version)
    assert run.bare
    assert run.payloads() == [b"", b""]
    assert run.packet(1) == packet


def test_run_of_long_packets_has_the_same_offsets() -> None:
    packet = Publish(topic="a", payload=b"x" * 200_000)
    run = run_of(packet)
    assert run.head == 4
    assert run.payloads() == [packet.payload]
    assert run.packet() == packet


@pytest.mark.parametrize("index", [-1, 2])
def test_packet_outside_the_run_does_not_exist(index: int) -> None:
    run = run_of(FIRST, SECOND)
    with pytest.raises(IndexError):
        run.packet(index)
    with pytest.raises(IndexError):
        run.raw(index)


def test_run_is_never_made_of_something_else() -> None:
    for packet in (
        Publish(topic="a", qos=1, packet_id=1),
        Publish(topic="a", properties=Properties(topic_alias=1)),
        Pingreq(),
    ):
        with pytest.raises((LocalProtocolError, RemoteProtocolError)):
            Run.parse(encode(packet, Version.V5), Version.V5)
    with pytest.raises(RemoteProtocolError):
        Run.parse(b"\x30\x00", Version.V5)


def test_run_is_never_repeated_with_bytes_of_another_form() -> None:
    run = run_of(FIRST)
    for data, count in (
        (run.data, 0),
        (run.data, 2),
        (run.data[:-1], 1),
        (encode(Publish(topic="a/c", payload=b"one", properties=ASKED), Version.V5), 1),
    ):
        with pytest.raises(LocalProtocolError, match="form"):
            run.repeated(data, count)
