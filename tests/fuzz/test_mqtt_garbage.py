"""Garbage and damaged packets raise `RemoteProtocolError` and nothing else, everywhere."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from mqtt.acks import AckRun
from mqtt.decode import decode_packet
from mqtt.encode import encode
from mqtt.errors import RemoteProtocolError
from mqtt.packets import Connect, Role, Version
from mqtt.reader import PacketReader
from mqtt.runs import Run
from mqtt.topics import verify_topic_filter, verify_topic_name
from tests.property.mqtt_packets import ROLES, VERSIONS, packets, streams


def verify(error: RemoteProtocolError | None) -> None:
    """Hold that a refusal can be answered and logged."""
    if error is not None:
        assert error.reason.failed
        assert str(error)


def read_to_the_end(
    chunks: list[bytes], version: Version, role: Role
) -> RemoteProtocolError | None:
    reader = PacketReader(role=role, max_packet_bytes=1_000, topic_alias_maximum=2, allow_v31=True)
    reader.version = version
    try:
        for chunk in chunks:
            reader.feed(chunk)
            while (event := reader.next_event()) is not None:
                if isinstance(event, Run):
                    for index in range(event.count):
                        event.packet(index)
                elif isinstance(event, AckRun):
                    event.packets()
    except RemoteProtocolError as error:
        return error
    return None


@settings(deadline=None)
@given(garbage=st.lists(st.binary(max_size=60), max_size=4), version=VERSIONS, role=ROLES)
def test_garbage_is_refused_in_one_way(garbage: list[bytes], version: Version, role: Role) -> None:
    verify(read_to_the_end(garbage, version, role))


@settings(max_examples=200, deadline=None)
@given(data=st.data(), version=VERSIONS, role=ROLES)
def test_damaged_stream_is_refused_in_one_way(
    data: st.DataObject, version: Version, role: Role
) -> None:
    sender = Role.CLIENT if role is Role.SERVER else Role.SERVER
    wire = bytearray(data.draw(streams(version, sender)))
    places = st.integers(0, len(wire) - 1)
    for place in data.draw(st.lists(places, max_size=6)) if wire else ():
        wire[place] = data.draw(st.integers(0, 255))
    verify(read_to_the_end([bytes(wire)], version, role))


@settings(max_examples=300, deadline=None)
@given(data=st.data(), version=VERSIONS, role=ROLES)
def test_damaged_packet_is_refused_in_one_way(
    data: st.DataObject, version: Version, role: Role
) -> None:
    sender = Role.CLIENT if role is Role.SERVER else Role.SERVER
    wire = bytearray(encode(data.draw(packets(version, sender)), version))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(wire) - 1))
        match data.draw(st.sampled_from(["set", "cut", "grow"])):
            case "set":
                wire[place] = data.draw(st.integers(0, 255))
            case "cut" if len(wire) > 2:
                del wire[place]
            case _:
                wire.insert(place, data.draw(st.integers(0, 255)))
    if data.draw(st.booleans()) and len(wire) < 130:
        wire[1] = len(wire) - 2
    try:
        packet = decode_packet(bytes(wire), version, role, allow_v31=True)
    except RemoteProtocolError as error:
        verify(error)
    else:
        spoken = packet.version if isinstance(packet, Connect) else version
        again = encode(packet, spoken)
        assert decode_packet(again, version, role, allow_v31=True) == packet


@settings(deadline=None)
@given(raw=st.binary(max_size=40))
def test_topics_of_garbage_are_refused_in_one_way(raw: bytes) -> None:
    for attempt in (
        lambda: verify_topic_name(raw),
        lambda: verify_topic_filter(raw.decode("latin-1")),
    ):
        try:
            attempt()
        except RemoteProtocolError as error:
            verify(error)
