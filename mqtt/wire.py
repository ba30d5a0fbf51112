"""The primitive data types of MQTT (1.5) as bytes: integers, strings, binary data.

Rules of this file: reading never trusts a length, and everything it refuses is a
`RemoteProtocolError`; writing never emits what reading would refuse, and says so with a
`LocalProtocolError`.
"""

from __future__ import annotations

from typing_extensions import override

from mqtt.errors import LocalProtocolError, ReasonCode, RemoteProtocolError

MAX_VARINT = 268_435_455
"""The largest variable byte integer: four bytes of seven bits (1.5.5)."""
MAX_VARINT_BYTES = 4
MAX_STRING_BYTES = 65_535
"""A string or binary datum has a two-byte length (1.5.4, 1.5.6)."""
VARINT_MORE = 0x80
VARINT_BITS = 0x7F


def protocol_error(message: str) -> RemoteProtocolError:
    """Return (not raise) a protocol error 0x82 with `message`."""
    return RemoteProtocolError(message, ReasonCode.PROTOCOL_ERROR)


def text_of(raw: bytes, what: str) -> str:
    """Return the string that `raw` encodes.

    Args:
        raw: the bytes after the length.
        what: what the string is, for the error.

    Raises:
        RemoteProtocolError: not UTF-8, a surrogate (1.5.4-1) or U+0000 (1.5.4-2). U+FEFF stays (1.5.4-3).
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(f"{what} is not well-formed UTF-8") from error
    if "\0" in text:
        raise RemoteProtocolError(f"{what} holds U+0000")
    return text


class Cursor:
    """Reads one packet's bytes from left to right, never past its end."""

    __slots__ = ("data", "end", "position")

    def __init__(self, data: bytes, position: int = 0, end: int | None = None) -> None:
        self.data = data
        self.position = position
        self.end = len(data) if end is None else end

    @override
    def __repr__(self) -> str:
        return f"<Cursor {self.position} of {self.end} bytes>"

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return self.end - self.position

    def take(self, count: int, what: str) -> bytes:
        """Return the next `count` bytes."""
        start = self.position
        stop = start + count
        if stop > self.end:
            raise RemoteProtocolError(f"{what} reaches past the end of its packet")
        self.position = stop
        return self.data[start:stop]

    def rest(self) -> bytes:
        """Return all bytes not read yet."""
        return self.take(self.end - self.position, "rest")

    def byte(self, what: str) -> int:
        """Return the next byte."""
        position = self.position
        if position >= self.end:
            raise RemoteProtocolError(f"{what} is missing")
        self.position = position + 1
        return self.data[position]

    def two_bytes(self, what: str) -> int:
        """Return the next two-byte integer (1.5.2)."""
        return int.from_bytes(self.take(2, what))

    def four_bytes(self, what: str) -> int:
        """Return the next four-byte integer (1.5.3)."""
        return int.from_bytes(self.take(4, what))

    def varint(self, what: str) -> int:
        """Return the next variable byte integer (1.5.5), which must use the fewest bytes."""
        value = 0
        for index in range(MAX_VARINT_BYTES):
            byte = self.byte(what)
            value |= (byte & VARINT_BITS) << (7 * index)
            if byte < VARINT_MORE:
                if byte == 0 and index:
                    raise RemoteProtocolError(f"{what} does not use the fewest bytes")
                return value
        raise RemoteProtocolError(f"{what} is longer than four bytes")

    def binary(self, what: str) -> bytes:
        """Return the next binary datum (1.5.6)."""
        return self.take(self.two_bytes(what), what)

    def text(self, what: str) -> str:
        """Return the next string (1.5.4)."""
        return text_of(self.binary(what), what)

    def finish(self, what: str) -> None:
        """Refuse bytes left over."""
        if self.position != self.end:
            raise RemoteProtocolError(f"{what} has {self.left} bytes too many")


def write_varint(value: int) -> bytes:
    """Return `value` as a variable byte integer in the fewest bytes (1.5.5-1)."""
    if not 0 <= value <= MAX_VARINT:
        raise LocalProtocolError(f"{value} does not fit a variable byte integer")
    if value < VARINT_MORE:
        return bytes((value,))
    out = bytearray()
    while value >= VARINT_MORE:
        out.append(value & VARINT_BITS | VARINT_MORE)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_integer(value: int, width_bytes: int, what: str) -> bytes:
    """Return `value` as an unsigned big-endian integer of `width_bytes`."""
    try:
        return value.to_bytes(width_bytes)
    except OverflowError as error:
        raise LocalProtocolError(f"{what} {value} does not fit {width_bytes} bytes") from error


def write_binary(value: bytes, what: str) -> bytes:
    """Return `value` behind its two-byte length (1.5.6)."""
    if len(value) > MAX_STRING_BYTES:
        raise LocalProtocolError(f"{what} is longer than {MAX_STRING_BYTES} bytes")
    return len(value).to_bytes(2) + value


def write_text(value: str, what: str) -> bytes:
    """Return `value` as a string behind its two-byte length (1.5.4)."""
    try:
        raw = value.encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"{what} holds a surrogate") from error
    if b"\0" in raw:
        raise LocalProtocolError(f"{what} holds U+0000")
    return write_binary(raw, what)
