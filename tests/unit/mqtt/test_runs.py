from __future__ import annotations

from dataclasses import replace

import pytest

from mqtt.decode import decode_packet
from mqtt.encode import encode
from mqtt.errors import LocalProtocolError, RemoteProtocolError
from mqtt.packets import EMPTY, Pingreq, Properties, Publish, Role, Version
from mqtt.runs import Run, run_of

ASKED = Properties(response_topic="r", correlation_data=b"1")
FIRST = Publish(topic="a/b", payload=b"one", properties=ASKED)
SECOND = Publish(topic="a/b", payload=b"two", properties=ASKED)


def joined(*packets: Publish, version: Version = Version.V5) -> Run:
    first = Run.parse(encode(packets[0], version), version)
    return first.repeated(b"".join(encode(each, version) for each in packets), len(packets))


def test_run_shows_its_packets() -> None:
    run = joined(FIRST, SECOND)
    assert (run.count, run.stride, run.topic) == (2, len(run.data) // 2, b"a/b")
    assert [run.packet(each) for each in range(2)] == [FIRST, SECOND]
    assert run.payloads() == [b"one", b"two"]
    assert run.payload_bytes == 3
    assert run.packet(1).properties == ASKED
    assert (run.qos, run.packet_ids(), run.properties) == (0, [], run.body)
    assert run.raw(1) == encode(SECOND, Version.V5)
    assert not run.bare
    assert not run.retain
    assert repr(run) == f"<Run of 2 x {run.stride} bytes on b'a/b', QoS 0, V5>"


@pytest.mark.parametrize("version", Version)
def test_run_without_properties_is_bare(version: Version) -> None:
    packet = Publish(topic="a", payload=b"")
    run = joined(packet, packet, version=version)
    assert run.bare
    assert run.payloads() == [b"", b""]
    assert run.packet(1) == packet


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("qos", [1, 2])
def test_run_above_qos_0_knows_its_identifiers(qos: int, version: Version) -> None:
    packets = [
        Publish(topic="a", payload=b"x", qos=qos, packet_id=each) for each in (1, 65_535, 256)
    ]
    run = joined(*packets, version=version)
    assert (run.qos, run.packet_ids()) == (qos, [1, 65_535, 256])
    assert run.bare
    assert run.properties == run.body + 2
    assert [run.packet(each) for each in range(3)] == packets


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("expiry_s", [None, 0, 7, 2**32 - 1])
def test_expiry_interval_is_that_of_the_packets(qos: int, expiry_s: int | None) -> None:
    for content_type in (None, "c"):
        properties = Properties(message_expiry_interval=expiry_s, content_type=content_type)
        message = Publish(topic="a", payload=b"x", qos=qos, properties=properties)
        assert run_of(message, Version.V5).expiry_interval == expiry_s
        assert run_of(message, Version.V311).expiry_interval is None


def received(packet: Publish, version: Version = Version.V5) -> Publish:
    read = decode_packet(encode(packet, version), version, Role.SERVER)
    assert isinstance(read, Publish)
    return read


def test_message_as_it_was_received_is_a_run_of_its_bytes() -> None:
    read = received(Publish(topic="a", payload=b"x", qos=2, packet_id=9, retain=True))
    run = run_of(read, Version.V5)
    assert run.data is read.raw
    assert run.retain
    assert run.packet_ids() == [9]


def test_run_of_a_repeated_message_has_no_dup_flag() -> None:
    first = Publish(topic="a", payload=b"x", qos=1, packet_id=9, dup=True)
    for message in (first, received(first)):
        run = run_of(message, Version.V5)
        assert run.packet() == replace(first, dup=False)


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_message_made_here_is_a_run_in_either_version(qos: int, version: Version) -> None:
    message = Publish(topic="a/b", payload=b"x" * 200, qos=qos, properties=ASKED)
    run = run_of(message, version)
    in_5 = version is Version.V5
    wanted = replace(message, packet_id=1 if qos else None, properties=ASKED if in_5 else EMPTY)
    assert run.packet() == wanted
    assert (run.topic, run.count, run.version, run.qos) == (b"a/b", 1, version, qos)
    assert run_of(received(message, version) if not qos else message, version).data == run.data


def test_message_of_the_other_version_is_written_anew() -> None:
    read = received(Publish(topic="a", payload=b"x", qos=1, packet_id=3, properties=ASKED))
    run = run_of(read, Version.V311)
    assert run.packet() == replace(read, properties=EMPTY)


def test_run_of_something_illegal_is_refused() -> None:
    for message in (Publish(topic=""), Publish(topic="a", properties=Properties(topic_alias=1))):
        with pytest.raises(LocalProtocolError):
            run_of(message, Version.V5)


def test_run_of_long_packets_has_the_same_offsets() -> None:
    packet = Publish(topic="a", payload=b"x" * 200_000)
    run = joined(packet)
    assert run.head == 4
    assert run.payloads() == [packet.payload]
    assert run.packet() == packet


@pytest.mark.parametrize("index", [-1, 2])
def test_packet_outside_the_run_does_not_exist(index: int) -> None:
    run = joined(FIRST, SECOND)
    with pytest.raises(IndexError):
        run.packet(index)
    with pytest.raises(IndexError):
        run.raw(index)


def test_run_is_never_made_of_something_else() -> None:
    for packet in (
        Publish(topic="a", properties=Properties(topic_alias=1)),
        Pingreq(),
    ):
        with pytest.raises((LocalProtocolError, RemoteProtocolError)):
            Run.parse(encode(packet, Version.V5), Version.V5)
    with pytest.raises(RemoteProtocolError):
        Run.parse(b"\x30\x00", Version.V5)


def test_run_is_never_repeated_with_bytes_of_another_form() -> None:
    run = joined(FIRST)
    for data, count in (
        (run.data, 0),
        (run.data, 2),
        (run.data[:-1], 1),
        (encode(Publish(topic="a/c", payload=b"one", properties=ASKED), Version.V5), 1),
    ):
        with pytest.raises(LocalProtocolError, match="form"):
            run.repeated(data, count)
