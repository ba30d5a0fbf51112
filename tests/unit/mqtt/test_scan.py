from __future__ import annotations

import pytest

from mqtt.known_topics import KnownTopics
from mqtt.scan import LOOP_PACKETS, is_ordinary_section, run_end

HEADER, TAIL, TAIL_OFFSET = b"head", b"t", 6
PACKET = b"head..t."
STRIDE = len(PACKET)


@pytest.mark.parametrize("count", [1, 2, LOOP_PACKETS, LOOP_PACKETS + 1, 500, 5_000])
@pytest.mark.parametrize("left", [0, 1, STRIDE - 1])
def test_run_reaches_to_the_last_whole_packet(count: int, left: int) -> None:
    data = PACKET * count + PACKET[:left]
    assert run_end(data, STRIDE, STRIDE, HEADER) == count * STRIDE


@pytest.mark.parametrize("broken", [1, 2, 31, 32, 33, 34, 60, 161, 162, 499])
@pytest.mark.parametrize("offset", [0, 3, TAIL_OFFSET])
def test_run_ends_before_the_first_packet_that_differs(broken: int, offset: int) -> None:
    wire = bytearray(PACKET * 500)
    wire[broken * STRIDE + offset] ^= 1
    assert run_end(bytes(wire), STRIDE, STRIDE, HEADER, TAIL, TAIL_OFFSET) == broken * STRIDE
    wire[broken * STRIDE + offset] ^= 1
    wire[broken * STRIDE + 4] ^= 1
    assert run_end(bytes(wire), STRIDE, STRIDE, HEADER, TAIL, TAIL_OFFSET) == len(wire)


def test_runs_cut_short_by_a_peer_cost_no_more_than_their_bytes() -> None:
    alike, other = b"ab.." * (LOOP_PACKETS + 2), b"ax.."
    data = (alike + other) * 2_000
    end = 0
    while end < len(data):
        end = run_end(data, end + 4, 4, data[end : end + 2])
    assert end == len(data)  # a quadratic scan would meet the timeout of the run first


def ordinary(section: str) -> bool:
    data = bytes.fromhex(section)
    return is_ordinary_section(b"<" + data + b">>>>", 1, 1 + len(data), KnownTopics().learn)


@pytest.mark.parametrize(
    "section",
    [
        "",
        "01 01",
        "02 00000001",
        "03 0001 61",
        "08 0001 61",
        "09 0002 ff00",
        "26 0001 6b 0001 76 26 0001 6b 0001 76",
        "26 0000 0000 09 0000 01 00",
    ],
)
def test_ordinary_section_is_known(section: str) -> None:
    assert ordinary(section)


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
    assert not ordinary(section)
