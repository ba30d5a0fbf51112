"""Where a property's value stands in the bytes of a PUBLISH, without decoding the others.

For callers that work on many packets of one layout at a time (`broker.kernels`, `mqtt.convert`): they
check once that all packets agree outside this span, then treat the span as a column.
"""

from __future__ import annotations

from mqtt.properties import RULES, SUBSCRIPTION_IDENTIFIER, USER_PROPERTY, Kind
from mqtt.wire import Cursor

CORRELATION_DATA = 0x09
MESSAGE_EXPIRY_INTERVAL = 0x02
EXPIRY_BYTES = 4
_FIXED_BYTES = {Kind.SWITCH: 1, Kind.BIT: 1, Kind.TWO_BYTES: 2, Kind.FOUR_BYTES: 4}


def correlation_span(packet: bytes, properties: int) -> tuple[int, int]:
    """Find the value of Correlation Data.

    Args:
        packet: the bytes of one MQTT 5 PUBLISH whose properties were already found valid.
        properties: offset of its property length.

    Returns:
        Start and end offset of the value's bytes; both are `properties` when there is none.

    Raises:
        RemoteProtocolError: the properties are not what the caller said they are.
    """
    cursor = _find(packet, properties, CORRELATION_DATA)
    if cursor is None:
        return properties, properties
    size = cursor.two_bytes("correlation data")
    return cursor.position, cursor.position + size


def expiry_span(packet: bytes, properties: int) -> tuple[int, int]:
    """Find the value of Message Expiry Interval; otherwise as `correlation_span`."""
    cursor = _find(packet, properties, MESSAGE_EXPIRY_INTERVAL)
    if cursor is None:
        return properties, properties
    return cursor.position, cursor.position + EXPIRY_BYTES


def _find(packet: bytes, properties: int, wanted: int) -> Cursor | None:
    """Return a cursor at the value of the property `wanted`, None when there is none."""
    cursor = Cursor(packet, properties)
    end = cursor.varint("property length") + cursor.position
    cursor.end = min(end, len(packet))
    while cursor.left:
        code = cursor.byte("property")
        if code == wanted:
            return cursor
        _skip(cursor, code)
    return None


def _skip(cursor: Cursor, code: int) -> None:
    if code == USER_PROPERTY:
        cursor.binary("user property")
        cursor.binary("user property")
    elif code == SUBSCRIPTION_IDENTIFIER:
        cursor.varint("subscription identifier")
    elif (width := _FIXED_BYTES.get(RULES[code].kind)) is not None:
        cursor.take(width, RULES[code].name)
    else:
        cursor.binary(RULES[code].name)
