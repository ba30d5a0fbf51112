from __future__ import annotations

import pytest

from mqtt.decode import LEGAL_FIRST_BYTES, MAX_FILTERS, decode_packet, verify_first_byte
from mqtt.encode import encode
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import (
    Auth,
    Connect,
    Disconnect,
    PacketType,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Role,
    Version,
)
from mqtt.wire import write_varint
from tests.vectors.mqtt.packets import ILLEGAL, LEGAL, Illegal, Legal, reader_of


@pytest.mark.parametrize("vector", LEGAL, ids=lambda each: each.name)
def test_legal_packet_is_read_as_the_standard_says(vector: Legal) -> None:
    assert decode_packet(vector.wire, vector.version, reader_of(vector)) == vector.packet


@pytest.mark.parametrize("vector", ILLEGAL, ids=lambda each: each.name)
def test_illegal_packet_is_refused_with_its_reason(vector: Illegal) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_packet(vector.wire, vector.version, reader_of(vector))
    assert caught.value.reason is vector.reason


def test_vectors_hold_every_packet_type_in_every_version() -> None:
    seen = {(each.version, PacketType(each.wire[0] >> 4)) for each in LEGAL}
    wanted = {(version, kind) for version in Version for kind in PacketType}
    assert wanted - seen == {(Version.V311, PacketType.AUTH)}, "which does not exist"


@pytest.mark.parametrize("vector", LEGAL, ids=lambda each: each.name)
def test_truncated_packet_is_refused_or_means_just_what_is_left(vector: Legal) -> None:
    head = 2  # all vectors are short
    for size in range(head, len(vector.wire)):
        cut = vector.wire[:size]
        with pytest.raises(RemoteProtocolError):
            decode_packet(cut, vector.version, reader_of(vector))
        shorter = cut[:1] + bytes((size - head,)) + cut[head:]
        try:
            packet = decode_packet(shorter, vector.version, reader_of(vector))
        except RemoteProtocolError:
            continue
        assert not isinstance(vector.packet, Connect), "CONNECT has no optional end"
        assert type(packet) is type(vector.packet)
        assert packet != vector.packet
        assert decode_packet(encode(packet, vector.version), vector.version, reader_of(vector)) == (
            packet
        )


@pytest.mark.parametrize("vector", LEGAL, ids=lambda each: each.name)
def test_packet_with_a_byte_more_is_refused_or_means_more(vector: Legal) -> None:
    longer = vector.wire[:1] + bytes((vector.wire[1] + 1,)) + vector.wire[2:] + b"\0"
    try:
        packet = decode_packet(longer, vector.version, reader_of(vector))
    except RemoteProtocolError:
        return
    if packet == vector.packet:
        optional = (Puback, Pubrec, Pubrel, Pubcomp, Disconnect, Auth)
        assert isinstance(packet, optional), "only these may spell out that nothing follows"


def test_received_publish_keeps_its_wire_bytes() -> None:
    wire = bytes.fromhex("32 07 0001 61 000a 00 78")
    packet = decode_packet(wire, Version.V5, Role.SERVER)
    assert isinstance(packet, Publish)
    assert packet.raw == wire
    assert packet.raw_version is Version.V5


def test_publish_with_an_alias_keeps_no_wire_bytes() -> None:
    packet = decode_packet(bytes.fromhex("30 07 0000 03 23 0001 78"), Version.V5, Role.SERVER)
    assert isinstance(packet, Publish)
    assert packet.raw == b""


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("version", Version)
def test_first_byte_is_weighed_alike_by_table_and_rule(role: Role, version: Version) -> None:
    for first in range(256):
        if first in LEGAL_FIRST_BYTES[role][version]:
            assert verify_first_byte(first, version, role) == first >> 4
        else:
            with pytest.raises(RemoteProtocolError) as caught:
                verify_first_byte(first, version, role)
            assert caught.value.reason in (
                ReasonCode.MALFORMED_PACKET,
                ReasonCode.PROTOCOL_ERROR,
            )


@pytest.mark.parametrize("kind", ["SUBSCRIBE", "UNSUBSCRIBE"])
def test_packet_with_more_filters_than_a_turn_may_take_is_refused(kind: str) -> None:
    one = b"\0\1a\0" if kind == "SUBSCRIBE" else b"\0\1a"
    first = 0x82 if kind == "SUBSCRIBE" else 0xA2
    for count, refused in ((MAX_FILTERS, False), (MAX_FILTERS + 1, True)):
        body = b"\0\1\0" + one * count
        data = bytes((first,)) + write_varint(len(body)) + body
        if not refused:
            decode_packet(data, Version.V5, Role.SERVER)
            continue
        with pytest.raises(RemoteProtocolError) as error:
            decode_packet(data, Version.V5, Role.SERVER)
        assert error.value.reason is ReasonCode.QUOTA_EXCEEDED
