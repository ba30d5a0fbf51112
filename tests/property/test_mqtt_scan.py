"""The scans of the hot path agree with the rules written plainly."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from mqtt.errors import RemoteProtocolError
from mqtt.known_topics import KnownTopics
from mqtt.packets import EMPTY
from mqtt.properties import Site, read_properties, write_properties
from mqtt.scan import run_end, weigh_section
from mqtt.spans import EXPIRY_BYTES
from mqtt.topics import verify_topic_name
from mqtt.wire import Cursor, write_varint
from tests.property.mqtt_packets import properties

Pieces = list[tuple[bytes, int]]


def plain_run_end(data: bytes, stride: int, pieces: Pieces) -> int:
    end = stride
    while end + stride <= len(data) and all(
        data[end + at : end + at + len(piece)] == piece for piece, at in pieces
    ):
        end += stride
    return end


@st.composite
def rows(draw: st.DrawFn) -> tuple[bytes, Pieces, int]:
    """Packets that agree in up to three pieces, now and then damaged, with something behind."""
    packet, pieces = b"", Pieces()
    for least in (1, 0, 0):
        piece = draw(st.binary(min_size=least, max_size=4))
        pieces.append((piece, len(packet)))
        packet += piece + b"x" * draw(st.integers(0, 3))
    wire = bytearray(packet * draw(st.integers(1, 700)) + draw(st.binary(max_size=9)))
    for _ in range(draw(st.integers(0, 2))):
        wire[draw(st.integers(0, len(wire) - 1))] ^= 1
    return bytes(wire), pieces, len(packet)


@settings(deadline=None)
@given(row=rows())
def test_run_end_is_that_of_the_plain_loop(row: tuple[bytes, Pieces, int]) -> None:
    data, pieces, stride = row
    (header, _), (middle, middle_at), (tail, tail_at) = pieces
    got = run_end(data, stride, stride, header, middle, middle_at, tail, tail_at)
    assert got == plain_run_end(data, stride, pieces)


def plainly_weighed(section: bytes) -> int | None:
    """What the plain decoder says: the expiry interval, -1 for none; None for what is not ordinary."""
    try:
        found = read_properties(
            Cursor(write_varint(len(section)) + section), Site.PUBLISH_BY_CLIENT
        )
        if found.response_topic is not None:
            verify_topic_name(found.response_topic.encode())
    except RemoteProtocolError:
        return None
    if found.topic_alias is not None:
        return None
    return -1 if found.message_expiry_interval is None else found.message_expiry_interval


def check(section: bytes) -> None:
    data = b"<" + section + b">" * 300
    place = weigh_section(data, 1, 1 + len(section), KnownTopics().learn)
    got = place
    if place is not None:
        got = int.from_bytes(section[place : place + EXPIRY_BYTES]) if place else -1
    assert got == plainly_weighed(section)


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
