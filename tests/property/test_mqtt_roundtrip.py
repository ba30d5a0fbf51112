"""decode(encode(x)) == x for every packet in both versions."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from mqtt.decode import decode_packet
from mqtt.encode import encode, encode_bounded
from mqtt.packets import Packet, Publish, Role, Version
from tests.property.mqtt_packets import ROLES, VERSIONS, packets


@settings(deadline=None)
@given(data=st.data(), version=VERSIONS, sender=ROLES)
def test_packet_survives_the_wire(data: st.DataObject, version: Version, sender: Role) -> None:
    packet: Packet = data.draw(packets(version, sender))
    reader = Role.SERVER if sender is Role.CLIENT else Role.CLIENT
    wire = encode(packet, version)
    assert decode_packet(wire, version, reader, allow_v31=True) == packet
    assert encode(decode_packet(wire, version, reader, allow_v31=True), version) == wire


@settings(deadline=None)
@given(data=st.data(), version=VERSIONS, sender=ROLES, spare=st.integers(0, 80))
def test_bounded_packet_fits_and_says_the_same(
    data: st.DataObject, version: Version, sender: Role, spare: int
) -> None:
    packet: Packet = data.draw(packets(version, sender))
    wire = encode_bounded(packet, version, spare)
    if wire is None:
        assert len(encode(packet, version)) > spare
        return
    assert len(wire) <= spare
    reader = Role.SERVER if sender is Role.CLIENT else Role.CLIENT
    again = decode_packet(wire, version, reader, allow_v31=True)
    assert type(again) is type(packet)
    if isinstance(packet, Publish):
        assert again == packet
