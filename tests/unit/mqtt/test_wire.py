from __future__ import annotations

import pytest

from mqtt.errors import LocalProtocolError, ReasonCode, RemoteProtocolError
from mqtt.wire import (
    MAX_VARINT,
    Cursor,
    protocol_error,
    text_of,
    write_binary,
    write_integer,
    write_text,
    write_varint,
)


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2_097_151, "ffff7f"),
        (2_097_152, "80808001"),
        (MAX_VARINT, "ffffff7f"),
    ],
)
def test_varint_has_the_bytes_of_table_1_1(value: int, wire: str) -> None:
    assert write_varint(value).hex() == wire
    assert Cursor(bytes.fromhex(wire)).varint("n") == value


@pytest.mark.parametrize("value", [-1, MAX_VARINT + 1])
def test_varint_out_of_range_is_never_written(value: int) -> None:
    with pytest.raises(LocalProtocolError):
        write_varint(value)


@pytest.mark.parametrize("wire", ["", "80", "ffffff", "ffffffff7f", "8000", "808000"])
def test_varint_cut_too_long_or_padded_is_refused(wire: str) -> None:
    with pytest.raises(RemoteProtocolError, match="n "):
        Cursor(bytes.fromhex(wire)).varint("n")


def test_cursor_never_reads_past_its_end() -> None:
    cursor = Cursor(b"\0\3abcd", 0, 4)
    with pytest.raises(RemoteProtocolError, match="`x` reaches past"):
        cursor.binary("`x`")
    cursor = Cursor(b"a", 1)
    with pytest.raises(RemoteProtocolError, match="missing"):
        cursor.byte("b")
    assert repr(cursor) == "<Cursor 1 of 1 bytes>"


def test_cursor_reads_what_was_written() -> None:
    cursor = Cursor(
        write_text("é", "t")
        + write_binary(b"\xff", "b")
        + write_integer(258, 2, "i")
        + b"\0\0\1\0z"
    )
    assert cursor.text("t") == "é"
    assert cursor.binary("b") == b"\xff"
    assert cursor.two_bytes("i") == 258
    assert cursor.four_bytes("i") == 256
    with pytest.raises(RemoteProtocolError, match="1 bytes too many"):
        cursor.finish("it")
    assert cursor.rest() == b"z"
    cursor.finish("it")


def test_text_keeps_the_byte_order_mark() -> None:
    assert text_of(b"\xef\xbb\xbfa", "t") == "\ufeffa"


@pytest.mark.parametrize("raw", [b"\xed\xa0\x80", b"\xc0\x80", b"\xff", b"a\0"])
def test_text_that_is_not_clean_utf_8_is_refused(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        text_of(raw, "t")
    assert caught.value.reason is ReasonCode.MALFORMED_PACKET


@pytest.mark.parametrize("text", ["\ud800", "\0", "a" * 65_536])
def test_text_that_cannot_be_read_is_never_written(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        write_text(text, "t")


@pytest.mark.parametrize("value", [65_536, -1])
def test_integer_out_of_range_is_never_written(value: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"i {value}"):
        write_integer(value, 2, "i")


def test_binary_that_is_too_long_is_never_written() -> None:
    with pytest.raises(LocalProtocolError):
        write_binary(b"a" * 65_536, "b")


def test_protocol_error_carries_0x82() -> None:
    assert protocol_error("x").reason == 0x82
