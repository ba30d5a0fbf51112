"""The scans of the hot path agree with the rules written plainly."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from mqtt.errors import RemoteProtocolError
from mqtt.known_topics import KnownTopics
from mqtt.packets import EMPTY
from mqtt.properties import Site, read_properties, write_properties
from mqtt.scan import is_ordinary_section, run_end
from mqtt.topics import verify_topic_name
from mqtt.wire import Cursor, write_varint
from tests.property.mqtt_packets import properties


def plain_run_end(data: bytes, end: int, stride: int, header: bytes) -> int:
    while end + stride <= len(data) and data[end : end + len(header)] == header:
        end += stride
    return end


@st.composite
def rows(draw: st.DrawFn) -> tuple[bytes, bytes, int]:
    """Packets that begin with the same header, now and then damaged, with something behind."""
    header = draw(st.binary(min_size=1, max_size=4))
    packet = header + b"x" * draw(st.integers(0, 5))
    wire = bytearray(packet * draw(st.integers(1, 700)) + draw(st.binary(max_size=9)))
    for _ in range(draw(st.integers(0, 2))):
        wire[draw(st.integers(0, len(wire) - 1))] ^= 1
    return bytes(wire), header, len(packet)


@settings(deadline=None)
@given(row=rows())
def test_run_end_is_that_of_the_plain_loop(row: tuple[bytes, bytes, int]) -> None:
    data, header, stride = row
    assert run_end(data, stride, stride, header) == plain_run_end(data, stride, stride, header)


def plainly_ordinary(section: bytes) -> bool:
    try:
        found = read_properties(
            Cursor(write_varint(len(section)) + section), Site.PUBLISH_BY_CLIENT
        )
        if found.response_topic is not None:
            verify_topic_name(found.response_topic.encode())
    except RemoteProtocolError:
        return False
    return found.topic_alias is None


def check(section: bytes) -> None:
    data = b"<" + section + b">" * 300
    stop = 1 + len(section)
    got = is_ordinary_section(data, 1, stop, KnownTopics().learn)
    assert got == plainly_ordinary(section)


@settings(deadline=None)
@given(data=st.data())
def test_written_sections_are_weighed_like_the_plain_decoder(data: st.DataObject) -> None:
    found = data.draw(properties(Site.PUBLISH_BY_SERVER, alias=True))
    section = b"" if found == EMPTY else write_properties(found, Site.PUBLISH_BY_SERVER)
    cursor = Cursor(section)
    if section:
        cursor.varint("length")
    check(cursor.rest())


@settings(deadline=None)
@given(data=st.data(), where=st.integers(0, 200), value=st.integers(0, 255))
def test_damaged_sections_are_weighed_like_the_plain_decoder(
    data: st.DataObject, where: int, value: int
) -> None:
    found = data.draw(properties(Site.PUBLISH_BY_CLIENT, alias=True))
    section = bytearray(write_properties(found, Site.PUBLISH_BY_CLIENT)[1:])
    if section:
        section[where % len(section)] = value
    check(bytes(section))


@settings(deadline=None)
@given(section=st.binary(max_size=12))
def test_random_sections_are_weighed_like_the_plain_decoder(section: bytes) -> None:
    check(section)
