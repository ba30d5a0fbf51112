from __future__ import annotations

from dataclasses import replace

import pytest

from mqtt.convert import convert_run, rewrite_publish
from mqtt.decode import decode_packet
from mqtt.encode import encode
from mqtt.errors import LocalProtocolError
from mqtt.packets import EMPTY, Properties, Publish, Role, Version
from mqtt.runs import Run

V5, V311 = Version.V5, Version.V311


def run_of(packet: Publish, count: int, version: Version) -> Run:
    wire = encode(packet, version)
    return Run.parse(wire, version).repeated(wire * count, count)


@pytest.mark.parametrize("version", Version)
def test_run_to_its_own_version_is_the_same_bytes(version: Version) -> None:
    run = run_of(Publish(topic="a", payload=b"x"), 3, version)
    assert convert_run(run, version) is run.data


@pytest.mark.parametrize("count", [1, 2, 100])
@pytest.mark.parametrize("size", [0, 1, 122, 123, 124, 16_379, 16_380])
def test_run_is_converted_also_where_the_header_grows(count: int, size: int) -> None:
    packet = Publish(topic="a", payload=b"x" * size)
    for before, after in ((V5, V311), (V311, V5)):
        run = run_of(packet, count, before)
        assert convert_run(run, after) == encode(packet, after) * count


def test_properties_are_dropped_for_the_older_version() -> None:
    packet = Publish(topic="a", payload=b"x", properties=Properties(content_type="t"))
    bare = replace(packet, properties=EMPTY)
    assert convert_run(run_of(packet, 2, V5), V311) == encode(bare, V311) * 2


def received(packet: Publish, version: Version) -> Publish:
    read = decode_packet(encode(packet, version), version, Role.SERVER)
    assert isinstance(read, Publish)
    return read


def test_message_gets_the_id_of_its_delivery() -> None:
    properties = Properties(user_properties=(("b", "1"), ("a", "2"), ("b", "1")))
    packet = Publish(topic="a", payload=b"x", qos=1, packet_id=7, properties=properties)
    wire = rewrite_publish(
        received(packet, V5), version=V5, qos=1, packet_id=9, dup=False, retain=False
    )
    assert wire == encode(replace(packet, packet_id=9), V5)


def test_changed_copy_is_written_as_changed() -> None:
    packet = replace(received(Publish(topic="a", payload=b"x"), V5), topic="b")
    wire = rewrite_publish(packet, version=V5, qos=0, packet_id=None, dup=False, retain=True)
    assert wire == encode(Publish(topic="b", payload=b"x", retain=True), V5)


@pytest.mark.parametrize(
    ("qos", "packet_id", "dup"),
    [(0, 1, False), (0, None, True), (1, None, False), (1, 0, False), (1, 65_536, True), (3, 1, False), (-1, 1, False)],
)  # fmt: skip
def test_delivery_that_contradicts_itself_is_refused(
    qos: int, packet_id: int | None, *, dup: bool
) -> None:
    made = Publish(topic="a")
    for packet in (made, received(made, V5)):
        with pytest.raises(LocalProtocolError):
            rewrite_publish(packet, version=V5, qos=qos, packet_id=packet_id, dup=dup, retain=False)
