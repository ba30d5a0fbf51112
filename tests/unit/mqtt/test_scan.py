from __future__ import annotations

import pytest

from mqtt.known_topics import KnownTopics
from mqtt.scan import LOOP_PACKETS, run_end, weigh_section

HEADER, TAIL, TAIL_OFFSET = b"head", b"t", 6
MIDDLE, MIDDLE_OFFSET = b"m", 5
PACKET = b"head.mt."
STRIDE = len(PACKET)


@pytest.mark.parametrize("count", [1, 2, LOOP_PACKETS, LOOP_PACKETS + 1, 500, 5_000])
@pytest.mark.parametrize("left", [0, 1, STRIDE - 1])
def test_run_reaches_to_the_last_whole_packet(count: int, left: int) -> None:
    data = PACKET * count + PACKET[:left]
    assert run_end(data, STRIDE, STRIDE, HEADER) == count * STRIDE


@pytest.mark.parametrize("broken", [1, 2, 31, 32, 33, 34, 60, 161, 162, 499])
@pytest.mark.parametrize("offset", [0, 3, MIDDLE_OFFSET, TAIL_OFFSET])
def test_run_ends_before_the_first_packet_that_differs(broken: int, offset: int) -> None:
    def end_of(wire: bytearray) -> int:
        pieces = (HEADER, MIDDLE, MIDDLE_OFFSET, TAIL, TAIL_OFFSET)
        return run_end(bytes(wire), STRIDE, STRIDE, *pieces)

    wire = bytearray(PACKET * 500)
    wire[broken * STRIDE + offset] ^= 1
    assert end_of(wire) == broken * STRIDE
    wire[broken * STRIDE + offset] ^= 1
    wire[broken * STRIDE + 4] ^= 1
    assert end_of(wire) == len(wire)


def test_runs_cut_short_by_a_peer_cost_no_more_than_their_bytes() -> None:
    alike, other = b"ab.." * (LOOP_PACKETS + 2), b"ax.."
    data = (alike + other) * 2_000
    end = 0
    while end < len(data):
        end = run_end(data, end + 4, 4, data[end : end + 2])
    assert end == len(data)  # a quadratic scan would meet the timeout of the run first


def weighed(section: str) -> int | None:
    data = bytes.fromhex(section)
    return weigh_section(b"<" + data + b">>>>", 1, 1 + len(data), KnownTopics().learn)


@pytest.mark.parametrize(
    ("section", "expiry"),
    [
        ("", 0),
        ("01 01", 0),
        ("02 00000001", 1),
        ("03 0001 61", 0),
        ("08 0001 61", 0),
        ("09 0002 ff00", 0),
        ("26 0001 6b 0001 76 26 0001 6b 0001 76", 0),
        ("26 0000 0000 09 0000 01 00", 0),
        ("01 01 02 00000001 09 0002 0200", 3),
    ],
)
def test_ordinary_section_is_known_and_its_expiry_found(section: str, expiry: int) -> None:
    assert weighed(section) == expiry


@pytest.mark.parametrize(
    "section",
    [
        "01",
        "01 02",
        "02 000000",
        "03 0001",
        "03 00",
        "03 0001 ff",
        "03 0001 00",
        "08 0000",
        "08 0001 2b",
        "09 0003 ffff",
        "26 0001 6b",
        "26 0001 6b 0001 00",
        "23 0001",
        "0b 01",
        "11 00000001",
        "7f",
        "ff 00",
        "01 01 01 01",
        "09 0000 09 0000",
        "08 0001 61 08 0001 61",
    ],
)
def test_any_other_section_is_left_to_the_plain_way(section: str) -> None:
    assert weighed(section) is None
