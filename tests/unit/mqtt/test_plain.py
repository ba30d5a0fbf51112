from __future__ import annotations

import pytest

from mqtt.encode import encode
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import Connect, Pingreq, Publish, Role, Version
from mqtt.plain import PlainReader, packet_size


@pytest.mark.parametrize(
    ("wire", "size"),
    [("30", None), ("3000", 2), ("30ff", None), ("30ff01", 258), ("30ffffff7f", 268_435_460)],
)
def test_size_is_known_with_the_fixed_header(wire: str, size: int | None) -> None:
    assert packet_size(bytes.fromhex(wire)) == size


@pytest.mark.parametrize("wire", ["308000", "3080808080", "30ffffffff7f"])
def test_size_that_is_padded_or_too_long_is_refused(wire: str) -> None:
    with pytest.raises(RemoteProtocolError, match="remaining length"):
        packet_size(bytes.fromhex(wire))


def test_packets_come_one_at_a_time() -> None:
    reader = PlainReader(role=Role.SERVER, max_packet_bytes=100)
    message = Publish(topic="a", payload=b"x")
    wire = encode(Connect(version=Version.V311), Version.V311)
    reader.feed(wire + encode(message, Version.V311) * 2 + b"\xc0")
    events = [reader.next_event() for _ in range(4)]
    assert events == [Connect(version=Version.V311), message, message, None]
    assert reader.version is Version.V311
    reader.feed(b"\0")
    assert reader.next_event() == Pingreq()


def test_packet_that_is_too_long_is_refused_on_its_header() -> None:
    reader = PlainReader(role=Role.SERVER, max_packet_bytes=100)
    reader.feed(b"\x10\x63")
    with pytest.raises(RemoteProtocolError) as caught:
        reader.next_event()
    assert caught.value.reason is ReasonCode.PACKET_TOO_LARGE
