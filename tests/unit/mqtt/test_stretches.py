from __future__ import annotations

import itertools

import pytest
from hypothesis import given, strategies as st

from mqtt.encode import encode
from mqtt.packets import Connect, Pingreq, Properties, Publish, Role, Version
from mqtt.reader import PacketReader
from mqtt.runs import Run
from mqtt.stretches import read_stretches

LEFT, RIGHT = object(), object()
TOPICS = {"a": LEFT, "b": LEFT, "c/d": RIGHT}
BOTH = pytest.mark.parametrize("version", list(Version))


def key(topic: str) -> bytes:
    raw = topic.encode()
    return len(raw).to_bytes(2) + raw


TABLE = {key(topic): value for topic, value in TOPICS.items()}


def packet(topic: str, version: Version, payload: bytes = b"x", **options: int | bool) -> bytes:
    return encode(Publish(topic=topic, payload=payload, **options), version)  # type: ignore[arg-type]


def read(
    data: bytes, version: Version, most: int = 1 << 20
) -> tuple[list[tuple[object, int]], int]:
    found, position = read_stretches(data, 0, most, version, TABLE)
    assert b"".join(each.data for each in found) == data[:position]
    return [(each.value, each.count) for each in found], position


@BOTH
def test_neighbours_with_one_value_are_one_slice_whatever_their_topics(version: Version) -> None:
    packets = [
        packet(topic, version, bytes(size)) for topic, size in (("a", 0), ("b", 200), ("a", 9))
    ]
    other = packet("c/d", version)
    found, position = read_stretches(b"".join([*packets, other]), 0, 1 << 20, version, TABLE)
    assert [(each.value, each.count, each.largest) for each in found] == [
        (LEFT, 3, len(packets[1])),
        (RIGHT, 1, len(other)),
    ]
    assert position == sum(map(len, packets)) + len(other)


@BOTH
@pytest.mark.parametrize(
    "stop",
    [
        packet("unknown", Version.V311),
        packet("a", Version.V311, retain=True),
        packet("a", Version.V311, qos=1, packet_id=1),
        encode(Pingreq(), Version.V5),
        b"\x30\x80\x80\x80\x80",
        b"\x30\x03\x00\x05a",
        b"\x30",
        b"",
    ],
    ids=[
        "unknown",
        "retain",
        "qos 1",
        "another packet",
        "no length",
        "cut topic",
        "one byte",
        "end",
    ],
)
def test_anything_else_ends_it_unread(stop: bytes, version: Version) -> None:
    first = packet("a", version)
    assert read(first + stop, version) == ([(LEFT, 1)], len(first))


def test_properties_end_it_unread() -> None:
    first = packet("a", Version.V5)
    stop = encode(Publish(topic="a", properties=Properties(content_type="x")), Version.V5)
    assert read(first + stop, Version.V5) == ([(LEFT, 1)], len(first))


@BOTH
def test_packet_that_is_too_long_is_left_to_whoever_refuses_it(version: Version) -> None:
    first, stop = packet("a", version), packet("a", version, bytes(300))
    assert read(first + stop, version, most=len(stop) - 1) == ([(LEFT, 1)], len(first))
    assert read(first + stop, version, most=len(stop))[0] == [(LEFT, 2)]


@BOTH
def test_packet_that_is_not_whole_is_left_until_it_is(version: Version) -> None:
    whole = packet("a", version, bytes(150))
    for cut in range(len(whole)):
        assert read(whole[:cut], version) == ([], 0)


@given(
    version=st.sampled_from(Version),
    sent=st.lists(
        st.tuples(st.sampled_from(["a", "b", "c/d", "unknown"]), st.integers(0, 200)), max_size=40
    ),
    cuts=st.lists(st.integers(0, 4_000), max_size=5),
)
def test_reader_gives_the_same_messages_with_and_without_a_table(
    version: Version, sent: list[tuple[str, int]], cuts: list[int]
) -> None:
    data = b"".join(packet(topic, version, bytes(size)) for topic, size in sent)
    reader = PacketReader(role=Role.SERVER, max_packet_bytes=1 << 20)
    reader.feed(encode(Connect(client_id="c", version=version), version))
    reader.next_event()
    reader.next_event()
    seen: list[bytes] = []
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, stop in itertools.pairwise(edges):
        reader.feed(data[start:stop])
        while (event := reader.next_event()) is not None:
            assert isinstance(event, Run)
            seen.append(event.data)
            seen += [stretch.data for stretch in reader.next_stretches(TABLE)]
    assert b"".join(seen) == data
