from __future__ import annotations

import pytest

from mqtt.decode import decode_packet
from mqtt.encode import encode
from mqtt.errors import LocalProtocolError, ReasonCode, RemoteProtocolError
from mqtt.packets import Connect, Role, Subscribe, Subscription, Version, Will
from mqtt.reader import PacketReader


def refused(wire: str) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_packet(bytes.fromhex(wire), Version.V5, Role.SERVER)
    return caught.value


@pytest.mark.parametrize(
    ("wire", "answer_in"),
    [
        ("10 0e 0004 4d515454 06 02 003c 00 0001 61", Version.V5),
        ("10 0d 0004 4d515454 03 02 003c 0001 61", Version.V311),
        ("10 0f 0006 4d5149736470 03 02 003c 0001 61", Version.V311),
    ],
)
def test_other_version_is_refused_in_a_format_its_client_reads(
    wire: str, answer_in: Version
) -> None:
    error = refused(wire)
    assert error.reason is ReasonCode.UNSUPPORTED_PROTOCOL_VERSION
    assert error.version is answer_in
    assert "5.0" in error.message


@pytest.mark.parametrize(
    ("wire", "answer_in"),
    [
        ("10 0e 0004 4d515454 05 03 003c 00 0001 61", Version.V5),
        ("10 0d 0004 4d515454 04 03 003c 0001 61", Version.V311),
    ],
)
def test_broken_connect_still_names_its_version(wire: str, answer_in: Version) -> None:
    assert refused(wire).version is answer_in


def test_other_protocol_names_no_version() -> None:
    error = refused("10 0e 0004 48545450 05 02 003c 00 0001 61")
    assert error.reason is ReasonCode.MALFORMED_PACKET
    assert error.version is None


OLD = Connect(client_id="c", version=Version.V311, legacy=True, clean_start=False, keep_alive=60)
OLD_HEAD = "0006 4d5149736470 03"


def old(wire: str) -> Connect:
    data = bytes.fromhex(OLD_HEAD + wire)
    packet = decode_packet(bytes((0x10, len(data))) + data, Version.V5, Role.SERVER, allow_v31=True)
    assert isinstance(packet, Connect)
    return packet


def test_mqtt_31_is_spoken_where_it_is_allowed_and_has_the_format_of_311() -> None:
    will = Will(topic="w", payload=b"gone", qos=1, retain=True)
    for packet in (
        OLD,
        Connect(
            client_id="x" * 23,
            version=Version.V311,
            legacy=True,
            will=will,
            username="u",
            password=b"p",
        ),
    ):
        wire = encode(packet, Version.V311)
        assert decode_packet(wire, Version.V5, Role.SERVER, allow_v31=True) == packet
        assert refused(wire.hex()).reason is ReasonCode.UNSUPPORTED_PROTOCOL_VERSION


@pytest.mark.parametrize("name", ["MQTT", "MQIsdp"])
@pytest.mark.parametrize("level", [2, 3, 4, 6])
def test_name_and_level_of_two_versions_are_no_version(name: str, level: int) -> None:
    if (name, level) in (("MQTT", 4), ("MQIsdp", 3)):
        return
    body = len(name).to_bytes(2) + name.encode() + bytes((level, 2, 0, 60, 0, 1)) + b"c"
    with pytest.raises(RemoteProtocolError) as caught:
        decode_packet(bytes((0x10, len(body))) + body, Version.V5, Role.SERVER, allow_v31=True)
    assert caught.value.reason is ReasonCode.UNSUPPORTED_PROTOCOL_VERSION


@pytest.mark.parametrize("client_id", ["", "x" * 24])
def test_client_id_of_mqtt_31_has_1_to_23_characters(client_id: str) -> None:
    packet = Connect(client_id=client_id, version=Version.V311, legacy=True)
    with pytest.raises(RemoteProtocolError) as caught:
        decode_packet(encode(packet, Version.V311), Version.V5, Role.SERVER, allow_v31=True)
    assert caught.value.reason is ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
    assert caught.value.version is Version.V311


@pytest.mark.parametrize(
    ("rest", "username", "password"),
    [
        ("c2 003c 0001 63 0001 75 0001 70", "u", b"p"),
        ("c2 003c 0001 63 0001 75", "u", None),
        ("c2 003c 0001 63", None, None),
        ("03 003c 0001 63", None, None),
    ],
)
def test_what_mqtt_31_leaves_open_is_accepted(
    rest: str, username: str | None, password: bytes | None
) -> None:
    found = old(rest)
    assert (found.client_id, found.username, found.password) == ("c", username, password)


def test_mqtt_31_is_never_written_as_another_version() -> None:
    with pytest.raises(LocalProtocolError, match=r"format of 3\.1\.1"):
        encode(Connect(legacy=True), Version.V5)


def test_mqtt_31_may_repeat_requests_with_the_dup_flag() -> None:
    asked = Subscribe(packet_id=1, filters=(Subscription(filter="a"),))
    wire = encode(asked, Version.V311)
    repeated = bytes((wire[0] | 8,)) + wire[1:]
    for legacy in (True, False):
        reader = PacketReader(role=Role.SERVER, max_packet_bytes=100, allow_v31=True)
        greeting = Connect(client_id="c", version=Version.V311, legacy=legacy)
        reader.feed(encode(greeting, Version.V311) + wire + repeated + b"\x6a\2\0\1")
        assert reader.next_event() == greeting
        assert reader.version is Version.V311
        assert reader.next_event() == asked
        if legacy:
            assert reader.next_event() == asked
            assert repr(reader.next_event()).startswith("Pubrel(packet_id=1")
        else:
            with pytest.raises(RemoteProtocolError):
                reader.next_event()
