"""ClientHellos that OpenSSL made, cut, joined, damaged and lied about."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest
from hypothesis import given, settings, strategies as st

from transport.client_hello import ClientHello, HelloTooLong, NotTls, read_client_hello

MAX_BYTES = 16384


def hello_of(*protocols: str, server_name: str | None = "Broker.Example") -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(protocols)
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


HELLO = hello_of("mqtt", "x")


def in_records(record: bytes, size: int) -> bytes:
    """Spread the message of one record over records of `size` bytes."""
    message = record[5:]
    return b"".join(
        b"\x16\x03\x01" + len(message[i : i + size]).to_bytes(2) + message[i : i + size]
        for i in range(0, len(message), size)
    )


def test_hello_names_server_and_protocols() -> None:
    hello = read_client_hello(HELLO, max_bytes=MAX_BYTES)
    assert hello == ClientHello(
        server_name="broker.example", protocols=("mqtt", "x"), size=len(HELLO) - 5
    )


def test_hello_may_name_nothing() -> None:
    hello = read_client_hello(hello_of(server_name=None), max_bytes=MAX_BYTES)
    assert hello is not None
    assert (hello.server_name, hello.protocols) == (None, ())


def test_hello_is_incomplete_until_its_last_byte() -> None:
    for end in range(len(HELLO)):
        assert read_client_hello(HELLO[:end], max_bytes=MAX_BYTES) is None
    whole = read_client_hello(HELLO, max_bytes=MAX_BYTES)
    assert read_client_hello(HELLO + b"\x14\x03\x03 anything", max_bytes=MAX_BYTES) == whole


@pytest.mark.parametrize("size", [40, 64, 100, 300])
def test_hello_may_be_spread_over_records(size: int) -> None:
    spread = in_records(HELLO, size)
    assert read_client_hello(spread, max_bytes=MAX_BYTES) == read_client_hello(
        HELLO, max_bytes=MAX_BYTES
    )
    for end in range(0, len(spread), 7):
        assert read_client_hello(spread[:end], max_bytes=MAX_BYTES) is None


@pytest.mark.parametrize("size", [1, 5, 20])
def test_hello_in_crumbs_is_refused(size: int) -> None:
    with pytest.raises(NotTls, match="more than 16 records"):
        read_client_hello(in_records(HELLO, size), max_bytes=MAX_BYTES)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x10",  # MQTT CONNECT without TLS
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x02",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",  # ServerHello
        b"\x80\x2e\x01",  # SSL 2
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",  # a ClientHello of one byte
    ],
)
def test_garbage_is_not_tls(garbage: bytes) -> None:
    with pytest.raises(NotTls):
        read_client_hello(garbage, max_bytes=MAX_BYTES)


def test_hello_that_is_too_long_is_refused_when_it_says_so() -> None:
    with pytest.raises(HelloTooLong, match="70000"):
        read_client_hello(
            b"\x16\x03\x01\x00\x06\x01" + (70000 - 4).to_bytes(3) + b"ab", max_bytes=MAX_BYTES
        )


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=400))
def test_any_bytes_raise_nothing_else(data: bytes) -> None:
    for start in (b"", b"\x16\x03\x01", HELLO[:43]):
        with suppress(NotTls, HelloTooLong):
            read_client_hello(start + data, max_bytes=MAX_BYTES)


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(HELLO) - 1), value=st.integers(0, 255))
def test_one_damaged_byte_raises_nothing_else(at: int, value: int) -> None:
    damaged = bytearray(HELLO)
    damaged[at] = value
    with suppress(NotTls, HelloTooLong):
        read_client_hello(damaged, max_bytes=MAX_BYTES)
