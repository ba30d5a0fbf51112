from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mqtt.errors import LocalProtocolError
from mqtt.identifiers import count_before_zero, read_ids, write_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

PLACE = 3


def packets(packet_ids: Sequence[int], stride: int) -> bytes:
    rest = bytes(stride - PLACE - 2)
    return b"".join(b"abc" + each.to_bytes(2) + rest for each in packet_ids)


@pytest.mark.parametrize("stride", [5, 6, 120])
@pytest.mark.parametrize(
    "packet_ids", [[1], [65_535], [256, 1, 65_535, 1], range(200, 900), range(65_530, 65_536)]
)
def test_identifiers_come_back_as_they_were_written(packet_ids: Sequence[int], stride: int) -> None:
    data = packets(packet_ids, stride)
    assert read_ids(data, PLACE, stride, len(packet_ids)) == list(packet_ids)
    out = bytearray(packets([7] * len(packet_ids), stride))
    write_ids(out, PLACE, stride, packet_ids)
    assert out == data


@pytest.mark.parametrize(
    "packet_ids", [[0], [65_536], [1, 0], range(2), range(65_535, 65_537), [-1]]
)
def test_identifiers_that_do_not_exist_are_never_written(packet_ids: Sequence[int]) -> None:
    before = packets([7] * len(packet_ids), 6)
    out = bytearray(before)
    with pytest.raises(LocalProtocolError, match="65535"):
        write_ids(out, PLACE, 6, packet_ids)
    assert out == before


@pytest.mark.parametrize("packet_ids", [range(1, 4, 2), range(3, 0, -1)])
def test_ranges_with_steps_are_written_as_they_are(packet_ids: range) -> None:
    out = bytearray(packets([7] * len(packet_ids), 6))
    write_ids(out, PLACE, 6, packet_ids)
    assert out == packets(packet_ids, 6)


@pytest.mark.parametrize(
    ("packet_ids", "count"),
    [([0], 0), ([1], 1), ([256, 512, 0, 0, 1], 2), (range(1, 2_000), 1_999), ([256, 0], 1)],
)
def test_identifiers_count_up_to_the_first_zero(packet_ids: Sequence[int], count: int) -> None:
    data = packets(packet_ids, 6)
    assert count_before_zero(data, PLACE, 6, len(packet_ids)) == count
