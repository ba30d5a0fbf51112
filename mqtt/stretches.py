"""Messages on many topics that go the same way: found by a table of topics, taken as one slice.

Topics that take turns make no runs (`mqtt.runs`), and a run of one costs several calls. Here a packet costs a look at its
header and one lookup; what the caller's table says of neighbouring topics is compared by identity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

from mqtt.packets import Version
from mqtt.wire import VARINT_BITS, VARINT_MORE

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

_PUBLISH_QOS_0: Final = 0x30
_LEAST_BYTES: Final = 5  # two of fixed header, two of the topic's length, one of topic


class Stretch(Generic[T]):
    """QoS 0 PUBLISH packets without properties, back to back, for whose topics the table holds one value.

    Attributes:
        value: what the table holds.
        data: their wire bytes.
        count: how many.
        largest: bytes of the longest of them.
    """

    __slots__ = ("count", "data", "largest", "value")

    def __init__(self, value: T, data: bytes, count: int, largest: int) -> None:
        self.value = value
        self.data = data
        self.count = count
        self.largest = largest


def read_stretches(
    data: bytes, position: int, max_packet_bytes: int, version: Version, table: Mapping[bytes, T]
) -> tuple[list[Stretch[T]], int]:
    """Return the stretches that begin at `position`, and where the packet behind them begins.

    HOT: the loop turns once a packet.

    Args:
        data: the bytes of a read.
        position: where a packet begins.
        max_packet_bytes: the longest packet accepted.
        version: of the connection; only in 5.0 an empty property section stands behind the topic.
        table: legal topic names behind their two-byte length, to values compared by identity.
    """
    found: list[Stretch[T]] = []
    size, has_section, get = len(data), version is Version.V5, table.get
    start, count, largest = position, 0, 0
    current: T | None = None
    while position + _LEAST_BYTES <= size and data[position] == _PUBLISH_QOS_0:
        head = position + 2
        remaining = data[position + 1]
        if remaining >= VARINT_MORE:
            high = data[head]
            if not 0 < high < VARINT_MORE or head + 2 >= size:
                break
            remaining = remaining & VARINT_BITS | high << 7
            head += 1
        end = head + remaining
        if end > size or end - position > max_packet_bytes:
            break
        body = head + 2 + (data[head] << 8 | data[head + 1])
        value = get(data[head:body])
        if value is None or (body >= end or data[body] if has_section else body > end):
            break
        if value is not current:
            if current is not None:
                found.append(Stretch(current, data[start:position], count, largest))
            current, start, count, largest = value, position, 0, 0
        count += 1
        if end - position > largest:  # noqa: PLR1730 - `max` costs a call a packet
            largest = end - position
        position = end
    if current is not None:
        found.append(Stretch(current, data[start:position], count, largest))
    return found, position
