from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from mqtt.decode import decode_packet
from mqtt.packets import Connect, PacketType, Publish, Role, Version, Will


def test_packets_cannot_change() -> None:
    packet = Publish(topic="a")
    with pytest.raises(FrozenInstanceError):
        packet.topic = "b"  # type: ignore[misc] # what the test is about
    assert not hasattr(packet, "__dict__")


def test_changed_copy_has_no_wire_bytes_of_the_original() -> None:
    packet = decode_packet(bytes.fromhex("30 04 0001 61 00"), Version.V5, Role.SERVER)
    assert isinstance(packet, Publish)
    assert packet.raw
    assert replace(packet, topic="b").raw == b""


def test_wire_bytes_do_not_make_packets_unequal() -> None:
    assert decode_packet(bytes.fromhex("30 04 0001 61 00"), Version.V5, Role.SERVER) == Publish(
        topic="a"
    )


def test_repr_shows_no_password_and_no_payload() -> None:
    shown = repr(
        Connect(username="u", password=b"hunter2", will=Will(topic="w", payload=b"private"))
    ) + repr(Publish(topic="a", payload=b"private"))
    assert "hunter2" not in shown
    assert "private" not in shown


def test_topic_bytes_are_those_of_the_wire() -> None:
    assert Publish(topic="é").topic_bytes == b"\xc3\xa9"


def test_packet_types_are_numbered_without_a_gap() -> None:
    assert list(PacketType) == list(range(1, 16))
