"""A message in another form is what encoding the changed packet would give."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings, strategies as st

from mqtt.convert import convert_run, rewrite_publish
from mqtt.decode import decode_packet
from mqtt.encode import encode
from mqtt.packets import EMPTY, Connect, Publish, Role, Version
from mqtt.reader import PacketReader
from mqtt.runs import Run
from tests.property.mqtt_packets import PACKET_IDS, VERSIONS, bursts, publishes


@settings(max_examples=60, deadline=None)
@given(data=st.data(), version=VERSIONS, to=VERSIONS)
def test_converted_run_is_its_packets_encoded(
    data: st.DataObject, version: Version, to: Version
) -> None:
    reader = PacketReader(role=Role.SERVER, max_packet_bytes=1 << 20, topic_alias_maximum=65_535)
    reader.feed(encode(Connect(version=version), version))
    assert isinstance(reader.next_event(), Connect)
    assert reader.next_event() is None
    reader.feed(data.draw(bursts(version, Role.CLIENT)))
    while (event := reader.next_event()) is not None:
        if not isinstance(event, Run):
            continue
        packets = [event.packet(each) for each in range(event.count)]
        if to is not version:
            packets = [replace(each, properties=EMPTY) for each in packets]
        got = convert_run(event, to)
        if to is version:
            assert got == event.data
        else:
            assert got == b"".join(encode(each, to) for each in packets)


FLAGS = st.fixed_dictionaries({"dup": st.booleans(), "retain": st.booleans()})


@settings(deadline=None)
@given(data=st.data(), version=VERSIONS, to=VERSIONS, packet_id=st.none() | PACKET_IDS, flags=FLAGS)
def test_rewritten_publish_is_the_changed_packet_encoded(
    data: st.DataObject,
    version: Version,
    to: Version,
    packet_id: int | None,
    flags: dict[str, bool],
) -> None:
    qos = 0 if packet_id is None else data.draw(st.integers(1, 2))
    dup, retain = flags["dup"] and qos > 0, flags["retain"]
    made: Publish = data.draw(publishes(version, Role.CLIENT))
    read = decode_packet(encode(made, version), version, Role.SERVER)
    assert isinstance(read, Publish)
    assert read.raw
    for each in (made, read):
        wire = rewrite_publish(
            each, version=to, qos=qos, packet_id=packet_id, dup=dup, retain=retain
        )
        outgoing = replace(made, qos=qos, packet_id=packet_id, dup=dup, retain=retain)
        if to is Version.V311:
            outgoing = replace(outgoing, properties=EMPTY)
        assert decode_packet(wire, to, Role.SERVER) == outgoing
