"""Reads a ClientHello before any TLS object exists: what the client asks for, or that it does not speak TLS.

Pure: bytes in, a `ClientHello` out. OpenSSL tells a server too late, or not at all, what we want to know before we
spend a context on a peer: the server name, and whether it offered application protocols of which none is ours.

*Rules of this file.* The bytes come from strangers: every length is checked against what is there, nothing is copied
beyond `max_bytes`, and garbage can raise nothing but `NotTls` and `HelloTooLong`. What OpenSSL checks anyway (versions,
ciphers, key shares) is not checked here. Sizes are of RFC 8446 sections 4 and 5.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from transport.errors import TransportError

_RECORD_HEADER_BYTES: Final = 5
_RECORD_START: Final = b"\x16\x03"  # a handshake record of SSL 3 or later
# Clients use one, some two; thousands would be work for us and none for the sender.
MAX_HELLO_RECORDS: Final = 16
_MAX_RECORD_BYTES: Final = 16384
_MESSAGE_HEADER_BYTES: Final = 4
_MESSAGE_CLIENT_HELLO: Final = 1
_VERSION_AND_RANDOM_BYTES: Final = 34
_EXTENSION_SERVER_NAME: Final = 0  # RFC 6066 section 3
_EXTENSION_ALPN: Final = 16  # RFC 7301 section 3.1
_NAME_TYPE_HOST: Final = 0
_MAX_HOST_BYTES: Final = 255  # RFC 1035 section 2.3.4
_HOST_BYTES: Final = frozenset(
    range(0x21, 0x7F)
)  # printable ASCII without space; RFC 6066: no other bytes in a host


class NotTls(TransportError):  # noqa: N818 - says the state, as the house names errors
    """The peer's first bytes are no ClientHello."""


class HelloTooLong(TransportError):  # noqa: N818 - says the state, as the house names errors
    """The peer announces a ClientHello of more bytes than we read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHello:
    """What a client asks for.

    Attributes:
        server_name: the host name it wants (SNI, lower case), None when it names none.
        protocols: the application protocols it offers, in its order; empty when it offers none.
        size: bytes of the ClientHello message.
    """

    server_name: str | None
    protocols: tuple[str, ...]
    size: int


def read_client_hello(data: bytes | bytearray, *, max_bytes: int) -> ClientHello | None:
    """Parse the first bytes of a connection.

    Args:
        data: everything the peer has sent so far; may be more than a ClientHello.
        max_bytes: a longer ClientHello is refused as soon as it says so.

    Returns:
        What the client asks for, or None while the ClientHello is not complete.

    Raises:
        NotTls: this is no ClientHello, and no further byte can make it one.
        HelloTooLong: it says it is longer than `max_bytes`.
    """
    message = _join_records(data)
    if message and message[0] != _MESSAGE_CLIENT_HELLO:
        raise NotTls("the peer's first TLS message is no ClientHello")
    if len(message) < _MESSAGE_HEADER_BYTES:
        return None
    size = _message_size(message)
    if size > max_bytes:
        raise HelloTooLong(
            f"the peer announces a ClientHello of {size} bytes, at most {max_bytes} are read"
        )
    if len(message) < size:
        return None
    return _parse(message[_MESSAGE_HEADER_BYTES:size], size)


def _join_records(data: bytes | bytearray) -> bytes:
    """Put the handshake bytes of the first message's records together, also of one that is not complete."""
    message = b""
    at = 0
    for _ in range(MAX_HELLO_RECORDS):
        header = data[at : at + _RECORD_HEADER_BYTES]
        _verify_record_start(header)
        if len(header) < _RECORD_HEADER_BYTES:
            return message
        length = int.from_bytes(header[3:])
        if not 0 < length <= _MAX_RECORD_BYTES:
            raise NotTls("the peer's first TLS record has an impossible length")
        at += _RECORD_HEADER_BYTES
        message += data[at : at + length]
        at += length
        # What follows a whole message is not ours to judge.
        if at > len(data) or _complete(message):
            return message
    raise NotTls(f"the peer cut its ClientHello into more than {MAX_HELLO_RECORDS} records")


def _verify_record_start(header: bytes | bytearray) -> None:
    if not _RECORD_START.startswith(bytes(header[: len(_RECORD_START)])):
        raise NotTls("the peer's first bytes are not the start of a TLS handshake")


def _complete(message: bytes) -> bool:
    return len(message) >= _MESSAGE_HEADER_BYTES and len(message) >= _message_size(message)


def _message_size(message: bytes) -> int:
    return _MESSAGE_HEADER_BYTES + int.from_bytes(message[1:_MESSAGE_HEADER_BYTES])


def _parse(body: bytes, size: int) -> ClientHello:
    fields = _Fields(body)
    fields.take(_VERSION_AND_RANDOM_BYTES)
    fields.take_vector(1)  # legacy session id
    fields.take_vector(2)  # cipher suites
    fields.take_vector(1)  # legacy compression methods
    server_name: str | None = None
    protocols: tuple[str, ...] = ()
    # TLS 1.2 allows a ClientHello without extensions; OpenSSL will refuse the version.
    if not fields.empty:
        extensions = _Fields(fields.take_vector(2))
        while not extensions.empty:
            kind = int.from_bytes(extensions.take(2))
            content = extensions.take_vector(2)
            if kind == _EXTENSION_SERVER_NAME:
                server_name = _read_server_name(content)
            elif kind == _EXTENSION_ALPN:
                protocols = _read_protocols(content)
    return ClientHello(server_name=server_name, protocols=protocols, size=size)


def _read_server_name(content: bytes) -> str | None:
    names = _Fields(_Fields(content).take_vector(2))
    while not names.empty:
        kind = names.take(1)[0]
        name = names.take_vector(2)
        if kind == _NAME_TYPE_HOST:
            if not 0 < len(name) <= _MAX_HOST_BYTES or not _HOST_BYTES.issuperset(name):
                raise NotTls("the peer's ClientHello names an impossible host")
            return name.decode("ascii").lower()
    return None


def _read_protocols(content: bytes) -> tuple[str, ...]:
    fields = _Fields(_Fields(content).take_vector(2))
    protocols: list[str] = []
    while not fields.empty:
        protocols.append(
            fields.take_vector(1).decode("latin-1")
        )  # opaque bytes, RFC 7301: compared, never shown raw
    return tuple(protocols)


class _Fields:
    """Takes fields off the front of `data`; whatever is not there is `NotTls`."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def empty(self) -> bool:
        return self._at >= len(self._data)

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise NotTls("the peer's ClientHello is cut short inside")
        self._at += count
        return self._data[self._at - count : self._at]

    def take_vector(self, length_bytes: int) -> bytes:
        return self.take(int.from_bytes(self.take(length_bytes)))
