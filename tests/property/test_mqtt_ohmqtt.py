"""ohmqtt, a codec by other people, agrees with ours; what it refuses is refused here too."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from mqtt.decode import decode_packet
from mqtt.encode import encode
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import (
    EMPTY,
    Packet,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Role,
    Version,
)
from tests.property.mqtt_packets import ROLES, packets

oracle = pytest.importorskip("ohmqtt.packet", reason="ohmqtt is not installed")
V5 = Version.V5  # it speaks no other


def read_by(sender: Role) -> Role:
    return Role.SERVER if sender is Role.CLIENT else Role.CLIENT


def comparable(packet: Packet) -> Packet:
    """It keeps Subscription Identifiers without their order, which means nothing (3.3.2.3.8)."""
    if not isinstance(packet, Publish):
        return packet
    identifiers = tuple(sorted(set(packet.properties.subscription_identifiers)))
    return replace(
        packet, properties=replace(packet.properties, subscription_identifiers=identifiers)
    )


def miswritten(packet: Packet) -> bool:
    """It leaves out the reason of an acknowledgement that has properties (ohmqtt 1.2.1)."""
    match packet:
        case Puback() | Pubrec() | Pubrel() | Pubcomp():
            return packet.reason is ReasonCode.SUCCESS and packet.properties != EMPTY
        case _:
            return False


@settings(max_examples=300, deadline=None)
@given(data=st.data(), sender=ROLES)
def test_packet_goes_through_the_other_codec_unchanged(data: st.DataObject, sender: Role) -> None:
    packet: Packet = data.draw(packets(V5, sender))
    read = oracle.decode_packet(encode(packet, V5))
    if not miswritten(packet):
        again = decode_packet(read.encode(), V5, read_by(sender))
        assert comparable(again) == comparable(packet)


@settings(max_examples=500, deadline=None)
@given(data=st.data(), sender=ROLES)
def test_damaged_packet_that_is_accepted_here_is_accepted_there(
    data: st.DataObject, sender: Role
) -> None:
    wire = bytearray(encode(data.draw(packets(V5, sender)), V5))
    place, value = data.draw(st.integers(0, len(wire) - 1)), data.draw(st.integers(0, 255))
    match data.draw(st.sampled_from(["set", "cut", "grow"])):
        case "set":
            wire[place] = value
        case "cut" if len(wire) > 2:
            del wire[place]
        case _:
            wire.insert(place, value)
    if data.draw(st.booleans()) and 2 <= len(wire) < 130:
        wire[1] = len(wire) - 2
    try:
        decode_packet(bytes(wire), V5, read_by(sender))
    except RemoteProtocolError:
        return
    oracle.decode_packet(bytes(wire))  # raises what it refuses
